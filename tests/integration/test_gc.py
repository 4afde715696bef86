"""gc and clean by the real doit: what is wanted stays, what is in use too, and the rest goes."""

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


def leave(site: SampleSite) -> set[str]:
    """What earlier locks, killed runs and other configs leave behind; returns its paths."""
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
        "trash",
    }


def listed(printed: str) -> set[str]:
    return {line.split("B  ")[1].split(": ")[0] for line in printed.splitlines() if "B  " in line}


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_what_nothing_names_goes_and_nothing_else(built_site: SampleSite) -> None:
    assert built_site.doit("gc") == "nothing to delete: all that is there is wanted\n"
    state = built_site.layout.state
    (state / "trash").mkdir(exist_ok=True)
    before = files(state)
    wanted = leave(built_site)
    everything = files(state)
    printed = built_site.doit("gc")
    assert listed(printed) == wanted
    assert re.search(rf"\n{len(wanted)} things, 0\.[1-9] MB; `doit gc --yes` deletes them", printed)
    assert files(state) == everything
    assert listed(built_site.doit("gc", "--yes")) == wanted
    folders = {
        "inside",
        "inside/builds",
        "inside/builds/base",
        "downloads",
        "work",
        "touched",
        "sets",
        "sets/base",
        "binhost",
        "binhost/base",
        "binhost/base/gen",
    }
    left = files(state) - before
    assert {str(path.relative_to(state)) for path in left} <= folders | set(_locks(built_site))
    assert before - files(state) == set()
    assert "nothing to do" in built_site.doit(*TASKS)
    assert built_site.doit("fsck").startswith("all is well: ")
    assert built_site.doit("gc", "--yes") == "nothing to delete\n"


def _locks(site: SampleSite) -> Iterator[str]:
    for name in names(site.layout.locks):
        yield f"locks/{name}"


def test_days_go_by(built_site: SampleSite, sample_upstream: SampleUpstream) -> None:
    """The tree of yesterday goes when neither the lock nor a kept generation names it."""
    old = json.loads(built_site.layout.record("tree").read_text())["commit"]
    sample_upstream.day(YESTERDAY - timedelta(days=1))
    day = f"{YESTERDAY - timedelta(days=1):%Y%m%d}"
    built_site.doit("snapshot", "--date", day)
    built_site.doit("lock", "--tree", day)
    assert listed(built_site.doit("gc")) == set()  # the record still names it
    built_site.doit(*TASKS)
    assert listed(built_site.doit("gc")) == {f"exports/{old}"}
    facts = {"set": "5" * 32, "revisions": {"gentoo": old}, "timestamp": 1, "views": {}}
    put(built_site.layout.binhost("base") / "gen/1/generation.json", json.dumps(facts))
    (built_site.layout.binpkgs("base") / ("5" * 32)).mkdir(parents=True)
    (built_site.layout.binpkgs("base") / ("6" * 32)).mkdir()
    assert listed(built_site.doit("gc", "--yes")) == {f"sets/base/{'6' * 32}"}
    assert built_site.layout.export(old).is_dir()
    subprocess.run(["rm", "-r", built_site.layout.binhost("base")], check=True)
    assert listed(built_site.doit("gc", "--yes")) == {f"exports/{old}", f"sets/base/{'5' * 32}"}
    assert set(
        subprocess.run(
            ["git", "--git-dir", built_site.layout.tree, "tag"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
    ) == {day, f"{YESTERDAY:%Y%m%d}"}


def test_a_chroot_that_is_no_longer_wanted(built_site: SampleSite) -> None:
    config = tomli.loads(built_site.layout.config.read_text())
    del config["chroots"]["java"], config["overlays"]["java"]
    built_site.write(config)
    commit = json.loads(built_site.layout.record("overlay:java").read_text())["commit"]
    gone = {
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
    assert listed(built_site.doit("gc", "--yes")) == gone
    built_site.doit("lock")  # pins it no more
    assert listed(built_site.doit("gc", "--yes")) == {f"exports/{commit}"}
    assert tasks_run(built_site.doit("tree", "seed", "chroot", "etc")) == {
        "tree",
        "seed:openrc",
    }  # to look


def test_nothing_goes_while_something_runs(built_site: SampleSite) -> None:
    leave(built_site)
    everything = files(built_site.layout.state)
    for task in ("binpkgs:base", "enter:java", "tree"):
        with locked(built_site.layout.task_lock(task), task):
            printed = built_site.doit("gc", "--yes", code=1)
            assert f"{task} is locked by another run (process " in printed
            printed = built_site.doit("clean", "chroot:base", code=1)
            assert f"{task} is locked by another run (process " in printed
    assert files(built_site.layout.state) >= everything
    assert "nothing to do" in built_site.doit(*TASKS)


@pytest.mark.parametrize("task", ["chroot:java", "tree"])
def test_nothing_goes_when_a_record_cannot_be_read(built_site: SampleSite, task: str) -> None:
    leave(built_site)
    built_site.layout.record(task).write_text('{"layers": 3}')
    printed = built_site.doit("gc", "--yes", code=1)
    assert f"the record of {task} is damaged" in printed
    assert "next: run `doit fsck --repair` first" in printed
    assert built_site.layout.export(COMMIT).is_dir()
    built_site.doit("fsck", "--repair")
    built_site.doit(*TASKS)
    built_site.doit("gc", "--yes")
    assert not built_site.layout.export(COMMIT).exists()
    assert built_site.doit("fsck").startswith("all is well: ")


@pytest.mark.usefixtures("needs_sandbox")
def test_what_is_mounted_is_not_walked_into(built_site: SampleSite, tmp_path: Path) -> None:
    """Fault 38: the deletion is refused, and what was behind the mount is intact."""
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
    assert f"something is mounted at {point}" in printed
    assert behind.exists()
    built_site.doit("gc", "--yes")
    assert behind.exists()
    assert not point.exists()


def test_clean_is_of_what_is_named(built_site: SampleSite) -> None:
    before, everything = built_site.records(), files(built_site.layout.state)
    printed = built_site.doit("clean", code=3)
    assert "name what is to be made again" in printed
    assert built_site.doit("clean", "--dry-run", "chroot:java").startswith(
        "chroot:java: would delete "
    )
    assert files(built_site.layout.state) == everything
    layers = json.loads(before["chroot.java.json"])["layers"]
    printed = built_site.doit("clean", "chroot:java", "lock")
    assert "lock: nothing of it is ever put away" in printed
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


def test_clean_with_a_record_that_leads_astray(built_site: SampleSite, tmp_path: Path) -> None:
    precious = put(tmp_path / "precious")
    built_site.layout.record("etc:base").write_text('{"path": "../../precious"}')
    built_site.doit("clean", "etc:base")
    assert precious.exists()
    built_site.layout.record("etc:base").write_text('{"path": "."}')
    built_site.doit("clean", "etc:base")
    assert tasks_run(built_site.doit(*TASKS)) == {"etc:base"}
