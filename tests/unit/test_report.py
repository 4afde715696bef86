"""The report of a site in any state: as data, as text, as JSON."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks import journal, records, updates
from tasks.causes import Cause, FilesChanged, MayChange, Reason, SettingChange, SettingsChanged
from tasks.domain import Package
from tasks.errors import DownloadFailed
from tasks.layout import Layout
from tasks.publish import generation
from tasks.publish.generation import Issue, Rollback, Source
from tasks.records import (
    BINPKGS,
    CHROOT,
    ETC,
    PUBLISH,
    SNAPSHOT,
    TREE,
    BinpkgsRecord,
    ChrootRecord,
    SnapshotRecord,
)
from tasks.report import json as report_json
from tasks.report import text
from tasks.report.gather import gather, holder
from tasks.report.model import DiskReport, SiteReport
from tasks.system.files import locked
from tasks.system.notes import Note

LOCK = f"""
version = 1
[tree]
tag = "20260310"
commit = "{"a" * 40}"
[overlays.java]
url = "https://git.example/java.git"
branch = "main"
commit = "{"b" * 40}"
"""
SEED_PATH = "20260301T000000Z/stage3.tar.xz"
SEED = f"""
[seeds.openrc]
arch = "amd64"
flavour = "openrc"
path = "{SEED_PATH}"
sha512 = "{"c" * 128}"
"""
KINDS = (CHROOT, ETC, BINPKGS, PUBLISH)


def reason(task: str, cause: Cause, *chain: str, root: Cause | None = None) -> Reason:
    return Reason(task, cause, root or cause, (task, *chain))


USE = SettingsChanged((SettingChange("use", added=("x",)),))
STALE = {
    "etc:base": reason("etc:base", USE),
    "binpkgs:base": reason("binpkgs:base", MayChange("etc:base"), "etc:base", root=USE),
}


def report(layout: Layout, reasons: dict[str, Reason] | None = None) -> SiteReport:
    """The report of a site with one chroot; it can be rendered as JSON and as lines."""
    keys = [TREE(), SNAPSHOT(), *(kind("base") for kind in KINDS)]
    tasks = {"base": [kind("base").task for kind in KINDS]}
    status = gather(layout, keys, tasks, reasons or {})
    assert json.loads(report_json.render(status))["version"] == 2
    assert all(line.isprintable() and len(line) < 320 for line in text.screen(status, time.time()))
    return status


def screen(layout: Layout, reasons: dict[str, Reason] | None = None) -> list[str]:
    return list(text.screen(report(layout, reasons), time.time()))


@pytest.fixture
def run(tmp_path: Path) -> Layout:
    return Layout(tmp_path, tmp_path / "state", run="20260311T101112Z-4999999")


def snapshot(tag: str) -> SnapshotRecord:
    return SnapshotRecord(tag, "a" * 40, 0, "b" * 128, "C" * 40)


def test_report_of_an_empty_site(layout: Layout) -> None:
    status = report(layout)
    assert (status.lock, status.last_run, status.problems) == (None, None, ())
    assert (status.disk, status.disk.total) == (DiskReport({}, True), 0)
    assert not layout.state.exists()
    assert "lock      nothing is pinned; run `doit lock`" in screen(layout)


def test_report_has_the_pins_and_their_age(layout: Layout) -> None:
    layout.lock.write_text(LOCK)
    lock = report(layout).lock
    assert lock is not None
    assert (lock.tree, lock.overlays, lock.seeds) == ("20260310", {"java": "b" * 40}, {})
    assert lock.age_days == (datetime.now(UTC) - datetime(2026, 3, 10, tzinfo=UTC)).days


def test_report_has_a_newer_tree(layout: Layout) -> None:
    layout.lock.write_text(LOCK)
    records.save(layout, SNAPSHOT(), snapshot("20260315"))
    assert report(layout).updates == (Note("tree-newer", {"tag": "20260315"}),)
    assert any(line.startswith("newer     ") for line in screen(layout))
    records.save(layout, SNAPSHOT(), snapshot("20260310"))
    assert report(layout).updates == ()


def test_report_has_updates_beyond_the_present_pins(layout: Layout) -> None:
    layout.lock.write_text(LOCK + SEED)
    fields = {"overlay": "java", "branch": "main", "head": "0" * 40, "pinned": "b" * 40}
    update = Note("overlay-moved", fields)
    updates.keep(layout, "overlay:java", "b" * 40, update)
    assert report(layout).updates == (update,)
    updates.keep(layout, "overlay:java", "0" * 40, update)  # beyond an older pin
    assert report(layout).updates == ()
    layout.upstream_update("overlay:java").write_text("[")
    assert report(layout).updates == ()
    updates.keep(layout, "overlay:java", "b" * 40, None)
    assert not layout.upstream_update("overlay:java").exists()
    updates.keep(layout, "seed:openrc", SEED_PATH, update)
    assert report(layout).updates == (update,)


def test_report_names_damaged_files_as_problems(layout: Layout) -> None:
    layout.lock.write_text("x")
    layout.record("tree").parent.mkdir(parents=True)
    for name, content in (("tree", "{"), ("chroot:base", "[]"), ("etc:base", "{}")):
        layout.record(name).write_text(content)
    lock, *problems = report(layout).problems
    assert "config.lock" in lock
    assert [Path(problem.split()[0]).name for problem in problems] == [
        "tree.json",
        "chroot.base.json",
        "etc.base.json",
    ]


def test_chroot_is_fresh_stale_or_failed(run: Layout) -> None:
    assert report(run).chroots["base"].state == "fresh"
    stale = report(run, STALE).chroots["base"]
    assert (stale.state, stale.task, stale.reason) == ("stale", "etc:base", STALE["etc:base"])
    assert "chroot    base  stale from etc:base: settings changed: use: +x" in screen(run, STALE)
    journal.start(run, "binpkgs:base")
    error = DownloadFailed("stage-pointer-empty", stage="x")
    journal.end(run, "binpkgs:base", "failed", 3, error)
    failed = report(run, STALE).chroots["base"]
    assert (failed.state, failed.task) == ("failed", "binpkgs:base")
    assert report(run).chroots["base"].state == "fresh"  # another run has made it since


@pytest.mark.parametrize("kind", ["check", "members", "client"])
def test_every_kind_of_task_can_be_failed(run: Layout, kind: str) -> None:
    task = f"{kind}:base"
    journal.start(run, task)
    journal.end(run, task, "failed", 1, DownloadFailed("stage-pointer-empty", stage="x"))
    reasons = {"binpkgs:base": STALE["binpkgs:base"], task: reason(task, FilesChanged(["x"]))}
    status = gather(run, [], {"base": ["binpkgs:base", task]}, reasons)
    assert (status.chroots["base"].state, status.chroots["base"].task) == ("failed", task)


def test_chroot_that_is_being_built_has_a_holder(run: Layout) -> None:
    journal.start(run, "binpkgs:base")
    last = report(run).last_run
    assert last is not None
    assert last.outcome == "interrupted"  # no process holds it
    with locked(run.task_lock("binpkgs:base"), "it"):
        status = report(run)
        chroot = status.chroots["base"]
        assert (chroot.state, chroot.task) == ("building", "binpkgs:base")
        assert chroot.holder is not None
        assert chroot.holder.since.endswith(" UTC")
        assert status.last_run is not None
        assert status.last_run.outcome == "running"
        assert holder(run, "etc:base") is None
    assert holder(run, "binpkgs:base") is None  # the text is still there, the lock is not


def test_chroot_modified_by_hand(layout: Layout) -> None:
    layout.manual_changes("base").mkdir(parents=True)
    assert report(layout).chroots["base"].modified
    assert "chroot    base  fresh, modified by hand" in screen(layout)


def test_chroot_made_on_a_modified_one(layout: Layout) -> None:
    records.save(layout, CHROOT("base"), ChrootRecord(("layer",), ("other",)))
    assert report(layout).chroots["base"].modified


def test_last_run_has_the_outcome_of_its_tasks(run: Layout) -> None:
    journal.start(run, "tree")
    journal.end(run, "tree", "done", 1)
    journal.start(run, "etc:base")
    journal.end(run, "etc:base", "failed", 1, DownloadFailed("stage-pointer-empty", stage="x"))
    last = report(run).last_run
    assert last is not None
    assert (last.outcome, last.tasks) == ("failed", {"tree": "done", "etc:base": "failed"})
    assert last.logs == str(run.run_logs)
    line = next(line for line in screen(run) if line.startswith("last run"))
    assert line.startswith("last run  failed: etc:base, ")
    assert line.endswith(f" s ago; logs in {run.run_logs}")


def test_binhost_has_its_generations(layout: Layout) -> None:
    binhost = layout.binhost("base")
    for number in (2, 3, 10):
        (binhost / "gen" / str(number)).mkdir(parents=True)
    (binhost / "current").symlink_to("gen/10")
    status = report(layout).binhosts["base"]
    assert (status.current, status.kept, status.held) == (10, (2, 3, 10), False)
    package = Package("a-b/c-1", 1, "0", "", "gentoo", "a-b/c/c-1-1.gpkg.tar", 1, "d" * 128)
    records.save(layout, BINPKGS("base"), BinpkgsRecord("s", (package,)))
    source = Source("s", "A" * 40, {})
    for rollback, expected in (
        (Rollback(2, instead_of="s"), True),
        (Rollback(2, instead_of="r"), False),
        (None, False),
    ):
        generation.write(binhost / "gen/10", source, Issue(1, 1, {"public": 1}, 1, rollback))
        assert report(layout).binhosts["base"].held is expected
        lines = [line for line in screen(layout) if line.startswith("binhost")]
        until = "; a rollback, held until `doit publish:base`" if expected else ""
        assert lines == [f"binhost   base  generation 10 is current, 3 kept{until}"]


def test_hostile_text_is_one_plain_line(layout: Layout) -> None:
    change = SettingChange("use", added=("\x1b[31m\n" + "x" * 500,))
    screen(layout, {"etc:base": reason("etc:base", SettingsChanged((change,)))})
