"""The journal of runs, their logs without secrets, and the deletion of old runs."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks import journal
from tasks.errors import DownloadFailed
from tasks.journal import Outcome, TaskRun
from tasks.layout import Layout
from tasks.system.notes import Note

NOW = 1_800_000_000.0
ENDED_PROCESS = 4_999_999  # above the kernel's largest process id (proc(5), pid_max)


def run_of(layout: Layout, days_ago: float, process: int = ENDED_PROCESS) -> Layout:
    """The layout of a run that started then."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(NOW - days_ago * 86400))
    return replace(layout, run=f"{stamp}-{process}")


def runs(layout: Layout) -> list[str]:
    return [folder.name for folder in journal.folders(layout)]


def outcomes(run: Layout) -> dict[str, str | None]:
    return {
        each.task: each.ended.outcome if each.ended else None
        for each in journal.task_runs(run.run_logs)
    }


def error(text: str) -> DownloadFailed:
    return DownloadFailed("stage-file-unreadable", file="f", cause=text)


def test_journal_has_the_outcome_of_each_task(layout: Layout) -> None:
    run = run_of(layout, 0)
    for task in ("tree", "seed:x", "chroot:x"):
        journal.start(run, task)
    journal.add_note(run, "seed:x", Note("stage-mirror-skipped", {"url": "u", "cause": "c"}))
    journal.end(run, "tree", "done", 2.04)
    journal.end(run, "seed:x", "failed", 1, error("x"))
    tree, seed, chroot = journal.task_runs(run.run_logs)
    assert tree.ended is not None
    assert (tree.task, tree.ended.outcome, tree.ended.seconds) == ("tree", "done", 2.0)
    assert seed.ended is not None
    assert (seed.ended.code, seed.ended.fields) == (
        "stage-file-unreadable",
        {"file": "f", "cause": "x"},
    )
    assert seed.ended.message == error("x").message
    assert [(note.code, note.fields) for note in seed.notes] == [
        ("stage-mirror-skipped", {"url": "u", "cause": "c"})
    ]
    assert chroot == TaskRun(chroot.started)
    assert (layout.logs / "latest").readlink() == Path(run.run)
    assert error("x").message in run.log("seed:x").read_text()


def test_damaged_journal_keeps_its_other_lines(layout: Layout) -> None:
    run = run_of(layout, 0)
    journal.start(run, "tree")
    with (run.run_logs / "journal").open("ab") as stream:
        stream.write(b'\xff\n[1]\n{}\n"x"\n{"event": "task-ended"}\n{"event": "other"}\n')
    journal.start(run, "lock")
    with (run.run_logs / "journal").open("ab") as stream:
        stream.write(b'{"event": "task-started", "task": "l')
    assert [each.task for each in journal.task_runs(run.run_logs)] == ["tree", "lock"]
    assert journal.events(layout.logs / "nothing") == []


def test_expected_time_is_that_of_the_last_success(layout: Layout) -> None:
    ends: list[tuple[int, Outcome, int]] = [(3, "done", 10), (2, "done", 20), (1, "failed", 1)]
    for days, outcome, seconds in ends:
        run = run_of(layout, days)
        journal.start(run, "tree")
        journal.end(run, "tree", outcome, seconds)
    assert journal.usual_seconds(layout) == {"tree": 20}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:secret@proxy:3128/", "http://***@proxy:3128/"),
        ("see https://token@host and ftp://a:b@c", "see https://***@host and ftp://***@c"),
        ("Proxy-Authorization: Basic c2VjcmV0", "Proxy-Authorization: ***"),
        ("authorization=Bearer secret", "authorization=***"),
        ("mail me@host about http://host/a@b", "mail me@host about http://host/a@b"),
    ],
)
def test_secrets_are_masked(layout: Layout, text: str, masked: str) -> None:
    run = run_of(layout, 0)
    journal.start(run, "binpkgs:x")
    run.log("binpkgs:x").write_text(text + "\n")
    package = run.package_logs("x") / "build" / "dev-libs:a.log"
    package.parent.mkdir(parents=True)
    package.write_text(text + "\n")
    journal.end(run, "binpkgs:x", "failed", 0, error(text))
    message = error(masked).message
    assert run.log("binpkgs:x").read_text() == f"{masked}\nfailed after 0.0 s\n{message}\n"
    assert package.read_text() == masked + "\n"
    (task,) = journal.task_runs(run.run_logs)
    assert task.ended is not None
    assert (task.ended.message, task.ended.fields) == (message, {"file": "f", "cause": masked})


def test_link_among_package_logs_is_not_followed(layout: Layout) -> None:
    run = run_of(layout, 0)
    journal.start(run, "binpkgs:x")
    own = layout.site / "own"
    own.write_text("http://a:b@c/")
    run.package_logs("x").mkdir(parents=True)
    (run.package_logs("x") / "a.log").symlink_to(own)
    journal.end(run, "binpkgs:x", "done", 0)
    assert own.read_text() == "http://a:b@c/"


def test_prune_deletes_old_runs(layout: Layout) -> None:
    recent = [run_of(layout, days) for days in (1, 20, 40)]
    for run in recent:
        journal.start(run, "tree")
        run.package_logs("x").mkdir(parents=True)
    alive = run_of(layout, 50, process=os.getpid())
    journal.start(alive, "tree")
    (layout.logs / "tree.log").write_text("of an earlier release")
    assert journal.prune(recent[0], days=30, megabytes=10, now=NOW) == [recent[2].run]
    assert runs(layout) == [recent[0].run, recent[1].run, alive.run]
    assert not recent[2].package_logs("x").exists()
    assert (layout.logs / "tree.log").exists()


def test_prune_deletes_the_oldest_of_large_runs(layout: Layout) -> None:
    large = [run_of(layout, days) for days in (1, 2, 3)]
    for run in large:
        journal.start(run, "tree")
        run.log("tree").write_bytes(b"x" * 600_000)
    deleted = journal.prune(large[0], days=30, megabytes=1, now=NOW)
    assert deleted == [large[1].run, large[2].run]
    assert runs(layout) == [large[0].run]


def test_prune_completes_a_killed_run_and_masks_its_logs(layout: Layout) -> None:
    killed = run_of(layout, 1)
    journal.start(killed, "tree")
    journal.end(killed, "tree", "done", 1)
    journal.start(killed, "binpkgs:x")
    killed.log("binpkgs:x").write_text("from http://me:secret@mirror/\n")
    package = killed.package_logs("x") / "a.log"
    package.parent.mkdir(parents=True)
    package.write_text("from http://me:secret@mirror/\n")
    now = run_of(layout, 0)
    journal.start(now, "tree")
    for _ in range(2):
        journal.prune(now, 30, 1000, now=time.time())
    assert "secret" not in killed.log("binpkgs:x").read_text() + package.read_text()
    assert killed.log("binpkgs:x").read_text().count("interrupted after") == 1
    assert outcomes(killed) == {"tree": "done", "binpkgs:x": "interrupted"}
    assert outcomes(now) == {"tree": None}
