"""What is kept of runs: a journal, logs without secrets, the newest of them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.engine import runs
from tasks.layout import Layout

NOW = 1_800_000_000.0
NOBODY = 4_999_999  # above the kernel's largest process id (proc(5), pid_max)


def named(layout: Layout, days_ago: float, process: int = NOBODY) -> Layout:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(NOW - days_ago * 86400))
    return replace(layout, run=f"{stamp}-{process}")


def kept(layout: Layout) -> list[str]:
    return [folder.name for folder in runs.folders(layout)]


def test_the_journal_tells_what_became_of_each_task(layout: Layout) -> None:
    run = named(layout, 0)
    for task in ("tree", "seed:x", "chroot:x"):
        runs.began(run, task)
    runs.ended(run, "tree", "done", 2.04)
    runs.ended(run, "seed:x", "failed", 1, "no mirror gave it")
    told = [(e["task"], e.get("outcome"), e.get("seconds")) for e in runs.journal(run.run_logs)]
    assert told == [("tree", "done", 2.0), ("seed:x", "failed", 1), ("chroot:x", None, None)]
    assert (layout.logs / "latest").readlink() == Path(run.run)
    assert "no mirror gave it" in run.log("seed:x").read_text()


def test_a_damaged_journal_tells_the_rest(layout: Layout) -> None:
    run = named(layout, 0)
    runs.began(run, "tree")
    with (run.run_logs / "journal").open("ab") as stream:
        stream.write(b'\xff\n[1]\n{}\n"x"\n{"task": "lock", "outcome": "done"}\n{"task": "l')
    assert [entry["task"] for entry in runs.journal(run.run_logs)] == ["tree", "lock"]
    assert runs.journal(layout.logs / "nothing") == []


def test_how_long_it_took_last_time(layout: Layout) -> None:
    for days, outcome, seconds in ((3, "done", 10), (2, "done", 20), (1, "failed", 1)):
        run = named(layout, days)
        runs.began(run, "tree")
        runs.ended(run, "tree", outcome, seconds)
    assert runs.expected(layout) == {"tree": 20}


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("http://me:secret@proxy:3128/", "http://***@proxy:3128/"),
        ("see https://token@host and ftp://a:b@c", "see https://***@host and ftp://***@c"),
        ("Proxy-Authorization: Basic c2VjcmV0", "Proxy-Authorization: ***"),
        ("authorization=Bearer secret", "authorization=***"),
        ("mail me@host about http://host/a@b", "mail me@host about http://host/a@b"),
    ],
)
def test_secrets_are_masked(layout: Layout, written: str, left: str) -> None:
    run = named(layout, 0)
    runs.began(run, "binpkgs:x")
    run.log("binpkgs:x").write_text(written + "\n")
    package = run.package_logs("x") / "build" / "dev-libs:a.log"
    package.parent.mkdir(parents=True)
    package.write_text(written + "\n")
    runs.ended(run, "binpkgs:x", "failed", 0, written)
    assert run.log("binpkgs:x").read_text() == f"{left}\nfailed after 0.0 s\n{left}\n"
    assert package.read_text() == left + "\n"
    assert runs.journal(run.run_logs)[0]["message"] == left


def test_a_link_among_the_logs_of_packages_is_not_followed(layout: Layout) -> None:
    run = named(layout, 0)
    runs.began(run, "binpkgs:x")
    own = layout.site / "own"
    own.write_text("http://a:b@c/")
    run.package_logs("x").mkdir(parents=True)
    (run.package_logs("x") / "a.log").symlink_to(own)
    runs.ended(run, "binpkgs:x", "done", 0)
    assert own.read_text() == "http://a:b@c/"


def test_old_ones_go(layout: Layout) -> None:
    made = [named(layout, days) for days in (1, 20, 40)]
    for run in made:
        runs.began(run, "tree")
        run.package_logs("x").mkdir(parents=True)
    alive = named(layout, 50, process=os.getpid())
    runs.began(alive, "tree")
    (layout.logs / "tree.log").write_text("of an earlier release")
    assert runs.prune(made[0], days=30, megabytes=10, now=NOW) == [made[2].run]
    assert kept(layout) == [made[0].run, made[1].run, alive.run]
    assert not made[2].package_logs("x").exists()
    assert (layout.logs / "tree.log").exists()


def test_the_oldest_go_when_all_are_large(layout: Layout) -> None:
    made = [named(layout, days) for days in (1, 2, 3)]
    for run in made:
        runs.began(run, "tree")
        run.log("tree").write_bytes(b"x" * 600_000)
    assert runs.prune(made[0], days=30, megabytes=1, now=NOW) == [made[1].run, made[2].run]
    assert kept(layout) == [made[0].run]


def test_what_a_killed_run_left_is_masked_by_the_next(layout: Layout) -> None:
    killed = named(layout, 1)
    runs.began(killed, "tree")
    runs.ended(killed, "tree", "done", 1)
    runs.began(killed, "binpkgs:x")
    killed.log("binpkgs:x").write_text("from http://me:secret@mirror/\n")
    package = killed.package_logs("x") / "a.log"
    package.parent.mkdir(parents=True)
    package.write_text("from http://me:secret@mirror/\n")
    now = named(layout, 0)
    runs.began(now, "tree")
    for _ in range(2):
        runs.prune(now, 30, 1000, now=time.time())
    assert "secret" not in killed.log("binpkgs:x").read_text() + package.read_text()
    assert killed.log("binpkgs:x").read_text().count("interrupted after") == 1
    told = {e["task"]: e["outcome"] for e in runs.journal(killed.run_logs)}
    assert told == {"tree": "done", "binpkgs:x": "interrupted"}
    assert "outcome" not in runs.journal(now.run_logs)[0]
