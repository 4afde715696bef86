"""gc and clean by the real doit: they delete leftovers and named artifacts, and nothing in use."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import tomli

from tasks.system.files import locked
from tests.kit.files import names
from tests.kit.sample_site import TASKS, YESTERDAY, SampleSite, SampleUpstream, tasks_run

COMMIT = "c" * 40


def put(path: Path, text: str = "x" * 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_leftovers(site: SampleSite) -> set[str]:
    """Create leftovers of earlier locks, killed runs and other configs; returns their paths."""
    state = site.layout.state
    for path in (
        f"exports/{COMMIT}/x/y.ebuild",
        f"exports/.{COMMIT}.tmp/x",
        f"seeds/{'d' * 32}/bin/sh",
        f"seeds/{'d' * 32}.listing",
        f"layers/base/{'1' * 32}/etc/hosts",
        "layers/old/2/etc/hosts",
        "etc/base/.3.tmp/make.conf",
        "etc/old/4/make.conf",
        "sets/base/.incoming/Packages",
        "overlays/old.git/HEAD",
        "inside/builds/old/5/Packages",
        "inside/builds/base/.6.tmp/x",
        "downloads/.stage3-old.tar.xz.partial",
        "downloads/stage3-old.tar.xz",
        "work/enter-base/x",
        "records/publish.old.json",
        "records/.tree.json.0123.tmp",
        "locks/publish.old",
        "binhost/base/gen/.7.tmp/Packages",
        "tree.git.damaged/HEAD",
        "touched/old",
        "gate/old/7/x",
        f"gate/base/{'8' * 32}/x",
        f"store/flat/{'9' * 32}/x",
        "trash/x",
    ):
        put(state / path)
    return {
        f"exports/{COMMIT}",
        f"exports/.{COMMIT}.tmp",
        f"seeds/{'d' * 32}",
        f"seeds/{'d' * 32}.listing",
        f"layers/base/{'1' * 32}",
        "layers/old",
        "etc/base/.3.tmp",
        "etc/old",
        "sets/base/.incoming",
        "overlays/old.git",
        "inside/builds/old",
        "inside/builds/base/.6.tmp",
        "downloads/.stage3-old.tar.xz.partial",
        "downloads/stage3-old.tar.xz",
        "work/enter-base",
        "records/publish.old.json",
        "records/.tree.json.0123.tmp",
        "locks/publish.old",
        "binhost/base/gen/.7.tmp",
        "tree.git.damaged",
        "touched/old",
        "gate/old",
        f"gate/base/{'8' * 32}",
        f"store/flat/{'9' * 32}",
        "trash",
    }


def paths_in(printed: str) -> set[str]:
    """The paths in the output of gc."""
    return {line.split("B  ")[1].split(": ")[0] for line in printed.splitlines() if "B  " in line}


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_gc_deletes_leftovers_and_nothing_else(built_site: SampleSite) -> None:
    assert built_site.doit("gc") == "nothing to delete: everything is needed\n"
    state = built_site.layout.state
    (state / "trash").mkdir(exist_ok=True)
    before = files(state)
    leftovers = make_leftovers(built_site)
    everything = files(state)
    printed = built_site.doit("gc")
    assert paths_in(printed) == leftovers
    assert re.search(rf"\n{len(leftovers)} leftovers, \d+ kB; `doit gc --yes`", printed)
    assert files(state) == everything
    assert paths_in(built_site.doit("gc", "--yes")) == leftovers
    folders = {
        "inside",
        "inside/builds",
        "inside/builds/base",
        "downloads",
        "work",
        "touched",
        "gate",
        "gate/base",
        "sets",
        "sets/base",
        "binhost",
        "binhost/base",
        "binhost/base/gen",
        "store",
        "store/flat",
    }
    left = files(state) - before
    assert {str(path.relative_to(state)) for path in left} <= folders | set(_locks(built_site))
    assert before - files(state) == set()
    assert "nothing to do" in built_site.doit(*TASKS)
    assert built_site.doit("fsck").startswith("no damage: ")
    assert built_site.doit("gc", "--yes") == "nothing to delete\n"


def _locks(site: SampleSite) -> Iterator[str]:
    for name in names(site.layout.locks):
        yield f"locks/{name}"


def test_gc_keeps_an_export_while_lock_record_or_generation_names_it(
    built_site: SampleSite, sample_upstream: SampleUpstream
) -> None:
    old = json.loads(built_site.layout.record("tree").read_text())["commit"]
    sample_upstream.day(YESTERDAY - timedelta(days=1))
    day = f"{YESTERDAY - timedelta(days=1):%Y%m%d}"
    built_site.doit("snapshot", "--date", day)
    built_site.doit("lock", "--tree", day)
    assert paths_in(built_site.doit("gc")) == set()  # the record still names it
    built_site.doit(*TASKS)
    assert paths_in(built_site.doit("gc")) == {f"exports/{old}"}
    facts = {"set": "5" * 32, "revisions": {"gentoo": old}, "timestamp": 1, "views": {}}
    put(built_site.layout.binhost("base") / "gen/1/generation.json", json.dumps(facts))
    (built_site.layout.binpkgs("base") / ("5" * 32)).mkdir(parents=True)
    (built_site.layout.binpkgs("base") / ("6" * 32)).mkdir()
    assert paths_in(built_site.doit("gc", "--yes")) == {f"sets/base/{'6' * 32}"}
    assert built_site.layout.export(old).is_dir()
    subprocess.run(["rm", "-r", built_site.layout.binhost("base")], check=True)
    assert paths_in(built_site.doit("gc", "--yes")) == {f"exports/{old}", f"sets/base/{'5' * 32}"}
    assert set(
        subprocess.run(
            ["git", "--git-dir", built_site.layout.tree, "tag"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
    ) == {day, f"{YESTERDAY:%Y%m%d}"}


def test_gc_deletes_files_of_a_removed_chroot(built_site: SampleSite) -> None:
    config = tomli.loads(built_site.layout.config.read_text())
    del config["chroots"]["java"], config["overlays"]["java"]
    built_site.write(config)
    commit = json.loads(built_site.layout.record("overlay:java").read_text())["commit"]
    leftovers = {
        "layers/java",
        "etc/java",
        "overlays/java.git",
        "records/chroot.java.json",
        "records/etc.java.json",
        "records/overlay.java.json",
        "locks/chroot.java",
        "locks/etc.java",
        "locks/overlay.java",
    }
    assert paths_in(built_site.doit("gc", "--yes")) == leftovers
    built_site.doit("lock")  # without its overlay
    assert paths_in(built_site.doit("gc", "--yes")) == {f"exports/{commit}"}
    # these compare the changed lock with their results
    assert tasks_run(built_site.doit("tree", "seed", "chroot", "etc")) == {"tree", "seed:openrc"}


def test_gc_beside_a_running_task_deletes_nothing(built_site: SampleSite) -> None:
    make_leftovers(built_site)
    everything = files(built_site.layout.state)
    for task in ("binpkgs:base", "enter:java", "tree"):
        with locked(built_site.layout.task_lock(task), task):
            for words in (("gc", "--yes"), ("clean", "chroot:base")):
                printed = built_site.doit(*words, code=1)
                assert re.search(rf"{task} is locked by another run \(process \d", printed), printed
    assert files(built_site.layout.state) >= everything
    assert "nothing to do" in built_site.doit(*TASKS)


@pytest.mark.parametrize("task", ["chroot:java", "tree"])
def test_gc_with_a_damaged_record_deletes_nothing(built_site: SampleSite, task: str) -> None:
    make_leftovers(built_site)
    built_site.layout.record(task).write_text('{"layers": 3}')
    printed = built_site.doit("gc", "--yes", code=1)
    assert f"the record of {task} is damaged" in printed
    assert "[unreadable-nothing-deleted]\n  next: run `doit fsck --repair`" in printed
    assert built_site.layout.export(COMMIT).is_dir()
    built_site.doit("fsck", "--repair")
    built_site.doit(*TASKS)
    built_site.doit("gc", "--yes")
    assert not built_site.layout.export(COMMIT).exists()
    assert built_site.doit("fsck").startswith("no damage: ")


@pytest.mark.usefixtures("needs_sandbox")
def test_gc_does_not_delete_below_a_mount(built_site: SampleSite, tmp_path: Path) -> None:
    behind = put(tmp_path / "behind/precious")
    point = put(built_site.layout.export(COMMIT) / "x/y").parent
    mounted = (
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        'mount --bind "$0" "$1" && shift && exec "$@"',
        behind.parent,
        point,
    )
    printed = built_site.doit("gc", "--yes", code=1, prefix=mounted)
    assert f"mounted at {point}" in printed
    assert behind.exists()
    built_site.doit("gc", "--yes")
    assert behind.exists()
    assert not point.exists()


def test_clean_deletes_named_artifacts_only(built_site: SampleSite) -> None:
    before, everything = built_site.records(), files(built_site.layout.state)
    printed = built_site.doit("clean", code=3)
    assert "doit clean TASK" in printed
    assert built_site.doit("clean", "--dry-run", "chroot:java").startswith(
        "chroot:java: would delete "
    )
    assert files(built_site.layout.state) == everything
    layers = json.loads(before["chroot.java.json"])["layers"]
    printed = built_site.doit("clean", "chroot:java", "lock")
    assert "lock: doit clean never deletes its results" in printed
    assert not (built_site.layout.state / layers[0]).exists()
    assert all((built_site.layout.state / layer).is_dir() for layer in layers[1:])
    assert built_site.layout.lock.exists()
    assert built_site.doit("why", *TASKS).startswith("chroot:java: ")
    assert tasks_run(built_site.doit(*TASKS)) == {"chroot:java"}
    assert built_site.records() == before
    built_site.doit("clean", "chroot", "seed:openrc")
    assert tasks_run(built_site.doit(*TASKS)) == {"seed:openrc", "chroot:base", "chroot:java"}
    assert built_site.records() == before
    assert built_site.doit("clean", "no:such", code=3).startswith("ERROR: ")


def test_clean_with_a_path_outside_in_a_record_deletes_nothing_there(
    built_site: SampleSite, tmp_path: Path
) -> None:
    precious = put(tmp_path / "precious")
    built_site.layout.record("etc:base").write_text('{"path": "../../precious", "files": []}')
    built_site.doit("clean", "etc:base")
    assert precious.exists()
    built_site.layout.record("etc:base").write_text('{"path": ".", "files": []}')
    built_site.doit("clean", "etc:base")
    assert tasks_run(built_site.doit(*TASKS)) == {"etc:base"}
