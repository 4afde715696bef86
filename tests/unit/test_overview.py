"""What `doit status` finds on a site, whatever state that is in."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tasks.engine.overview import disk, holder, overview
from tasks.engine.status import screen

from tasks import records
from tasks.engine import runs
from tasks.layout import Layout
from tasks.system.files import locked

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
SEED = f"""
[seeds.openrc]
arch = "amd64"
flavour = "openrc"
path = "20260301T000000Z/stage3.tar.xz"
sha512 = "{"c" * 128}"
"""


def tasks(layout: Layout) -> dict[str, Any]:
    names = ["tree", *(f"{kind}:base" for kind in ("chroot", "etc", "binpkgs", "publish"))]
    return {name: SimpleNamespace(targets=[str(layout.record(name))]) for name in names}


def look(layout: Layout, causes: dict[str, str] | None = None) -> dict[str, Any]:
    found = overview(layout, ["base"], tasks(layout), causes or {})
    assert json.loads(json.dumps(found)) == found  # plain data
    return found


def shown(layout: Layout, causes: dict[str, str] | None = None) -> list[str]:
    return list(screen(look(layout, causes), time.time()))


@pytest.fixture
def run(tmp_path: Path) -> Layout:
    return Layout(tmp_path, tmp_path / "state", run="20260311T101112Z-4999999")


def test_nothing_there_yet(layout: Layout) -> None:
    found = look(layout)
    assert (found["lock"], found["last_run"], found["problems"]) == (None, None, [])
    assert found["disk"] == {"bytes": {}, "total": 0, "complete": True}
    assert not layout.state.exists()
    assert "lock      nothing is pinned; `doit lock`" in shown(layout)


def test_the_lock_and_what_is_newer(layout: Layout) -> None:
    layout.lock.write_text(LOCK)
    layout.record("snapshot").parent.mkdir(parents=True)
    layout.record("snapshot").write_text('{"tag": "20260315"}')
    found = look(layout)
    assert found["lock"]["tree"] == "20260310"
    assert found["lock"]["age_days"] > 0
    assert "newer     the tree of 20260315 is frozen; `doit lock` pins it" in shown(layout)
    layout.record("snapshot").write_text('{"tag": "20260310"}')
    assert look(layout)["newer"] == []
    pinned = look(layout)["lock"]["overlays"]["java"]
    records.tell(
        layout, "overlay:java", pinned, "java: main has moved on to 0123456 (pinned: 1234567)"
    )
    assert any("newer     overlay java: main has moved on" in line for line in shown(layout))
    records.tell(layout, "overlay:java", "0" * 40, "java: of an older pin")
    assert look(layout)["newer"] == []
    layout.update("overlay:java").write_text("[")
    assert look(layout)["newer"] == []
    records.tell(layout, "overlay:java", pinned, "")
    assert not layout.update("overlay:java").exists()


def test_a_newer_seed(layout: Layout) -> None:
    layout.lock.write_text(LOCK + SEED)
    records.tell(layout, "seed:openrc", "20260301T000000Z/stage3.tar.xz", "openrc: B is there")
    assert "newer     seed openrc: B is there; `doit lock` follows" in shown(layout)
    records.tell(layout, "seed:openrc", "20260201T000000Z/stage3.tar.xz", "of an older pin")
    assert look(layout)["newer"] == []


def test_a_damaged_lock_and_damaged_records(layout: Layout) -> None:
    layout.lock.write_text("x")
    layout.record("tree").parent.mkdir(parents=True)
    for name, text in (("tree", "{"), ("chroot:base", "[]"), ("etc:base", "{}"), ("snapshot", "x")):
        layout.record(name).write_text(text)
    problems = [line for line in shown(layout) if line.startswith("problem")]
    assert len(problems) == 3
    assert "config.lock cannot be used" in problems[0]
    assert "tree.json is damaged" in problems[1]
    assert "chroot.base.json is damaged" in problems[2]


def test_a_chroot_that_is_fresh_stale_failed(run: Layout) -> None:
    assert "chroot    base  fresh" in shown(run)
    stale = {
        "etc:base": "use changed: +x",
        "binpkgs:base": "runs if etc:base leaves something new",
    }
    assert "chroot    base  stale from etc:base on: use changed: +x" in shown(run, stale)
    runs.began(run, "binpkgs:base")
    runs.ended(run, "binpkgs:base", "failed", 3, "no")
    assert "chroot    base  failed at binpkgs:base" in shown(run, stale)
    assert "chroot    base  fresh" in shown(run)  # made since, by another run


def test_a_chroot_that_is_being_made(run: Layout) -> None:
    runs.began(run, "binpkgs:base")
    assert look(run)["last_run"]["outcome"] == "interrupted"  # nobody holds it
    with locked(run.busy("binpkgs:base"), "it"):
        found = look(run)
        assert found["chroots"]["base"]["state"] == "building"
        assert found["chroots"]["base"]["since"].endswith(" UTC")
        assert found["last_run"]["outcome"] == "running"
        assert holder(run, "etc:base") is None
    assert holder(run, "binpkgs:base") is None  # the text is still there, the lock is not


def test_a_chroot_touched_by_hand(layout: Layout) -> None:
    layout.manual_changes("base").mkdir(parents=True)
    assert "chroot    base  fresh, touched by hand" in shown(layout)


def test_the_last_run(run: Layout) -> None:
    for task, outcome in (("tree", "done"), ("etc:base", "failed")):
        runs.began(run, task)
        runs.ended(run, task, outcome, 1)
    last = next(line for line in shown(run) if line.startswith("last run"))
    assert last.startswith("last run  failed: etc:base, ")
    assert last.endswith(f" s ago; logs in {run.run_logs}")


def test_what_is_published(layout: Layout) -> None:
    for number in (2, 3, 10):
        (layout.binhost("base") / "gen" / str(number)).mkdir(parents=True)
    (layout.binhost("base") / "current").symlink_to("gen/10")
    assert look(layout)["generations"] == {
        "base": {"current": 10, "kept": [2, 3, 10], "held": False}
    }
    facts = layout.binhost("base") / "gen/10/generation.json"
    layout.record("binpkgs:base").parent.mkdir(parents=True)
    for told, held in (({"instead_of": "s"}, True), ({"instead_of": "r"}, False), ({}, False)):
        facts.write_text(json.dumps(told))
        layout.record("binpkgs:base").write_text('{"set": "s"}')
        assert look(layout)["generations"]["base"]["held"] is held
        lines = [line for line in shown(layout) if line.startswith("binhost")]
        until = "; held after a rollback, until `doit publish:base`" if held else ""
        assert lines == [f"binhost   base  generation 10 is current, 3 kept{until}"]


def test_disk_use_is_counted_once_and_has_its_time(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "seeds" / "b").hardlink_to(tmp_path / "seeds" / "a")
    (tmp_path / "link").symlink_to("/")
    found = disk(tmp_path, time.monotonic() + 60)
    assert found["complete"]
    assert 100_000 <= found["bytes"]["seeds"] < 200_000
    assert not disk(tmp_path, time.monotonic() - 1)["complete"]


def test_hostile_text_stays_one_plain_line(layout: Layout) -> None:
    lines = shown(layout, {"etc:base": "use changed: +\x1b[31m\n" + "x" * 500})
    assert all(line.isprintable() and len(line) < 320 for line in lines)
