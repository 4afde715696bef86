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
from tests.kit.sample_site import MADE, YESTERDAY, Small, Upstream, ran

COMMIT = "c" * 40


def put(path: Path, text: str = "x" * 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def leave(site: Small) -> set[str]:
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


def test_what_nothing_names_goes_and_nothing_else(made: Small) -> None:
    assert made.doit("gc") == "nothing to delete: all that is there is wanted\n"
    state = made.layout.state
    (state / "trash").mkdir(exist_ok=True)
    before = files(state)
    wanted = leave(made)
    everything = files(state)
    printed = made.doit("gc")
    assert listed(printed) == wanted
    assert re.search(rf"\n{len(wanted)} things, 0\.[1-9] MB; `doit gc --yes` deletes them", printed)
    assert files(state) == everything
    assert listed(made.doit("gc", "--yes")) == wanted
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
    assert {str(path.relative_to(state)) for path in left} <= folders | set(_locks(made))
    assert before - files(state) == set()
    assert "nothing to do" in made.doit(*MADE)
    assert made.doit("fsck").startswith("all is well: ")
    assert made.doit("gc", "--yes") == "nothing to delete\n"


def _locks(site: Small) -> Iterator[str]:
    for name in names(site.layout.locks):
        yield f"locks/{name}"


def test_days_go_by(made: Small, small_upstream: Upstream) -> None:
    """The tree of yesterday goes when neither the lock nor a kept generation names it."""
    old = json.loads(made.layout.record("tree").read_text())["commit"]
    small_upstream.day(YESTERDAY - timedelta(days=1))
    day = f"{YESTERDAY - timedelta(days=1):%Y%m%d}"
    made.doit("snapshot", "--date", day)
    made.doit("lock", "--tree", day)
    assert listed(made.doit("gc")) == set()  # the record still names it
    made.doit(*MADE)
    assert listed(made.doit("gc")) == {f"exports/{old}"}
    facts = {"set": "5" * 32, "revisions": {"gentoo": old}, "timestamp": 1, "views": {}}
    put(made.layout.binhost("base") / "gen/1/generation.json", json.dumps(facts))
    (made.layout.binpkgs("base") / ("5" * 32)).mkdir(parents=True)
    (made.layout.binpkgs("base") / ("6" * 32)).mkdir()
    assert listed(made.doit("gc", "--yes")) == {f"sets/base/{'6' * 32}"}
    assert made.layout.export(old).is_dir()
    subprocess.run(["rm", "-r", made.layout.binhost("base")], check=True)
    assert listed(made.doit("gc", "--yes")) == {f"exports/{old}", f"sets/base/{'5' * 32}"}
    assert set(
        subprocess.run(
            ["git", "--git-dir", made.layout.tree, "tag"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
    ) == {day, f"{YESTERDAY:%Y%m%d}"}


def test_a_chroot_that_is_no_longer_wanted(made: Small) -> None:
    config = tomli.loads(made.layout.config.read_text())
    del config["chroots"]["java"], config["overlays"]["java"]
    made.write(config)
    commit = json.loads(made.layout.record("overlay:java").read_text())["commit"]
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
    assert listed(made.doit("gc", "--yes")) == gone
    made.doit("lock")  # pins it no more
    assert listed(made.doit("gc", "--yes")) == {f"exports/{commit}"}
    assert ran(made.doit("tree", "seed", "chroot", "etc")) == {"tree", "seed:openrc"}  # to look


def test_nothing_goes_while_something_runs(made: Small) -> None:
    leave(made)
    everything = files(made.layout.state)
    for task in ("binpkgs:base", "enter:java", "tree"):
        with locked(made.layout.busy(task), task):
            printed = made.doit("gc", "--yes", code=1)
            assert f"{task} is in the hands of another run (process " in printed
            printed = made.doit("clean", "chroot:base", code=1)
            assert f"{task} is in the hands of another run (process " in printed
    assert files(made.layout.state) >= everything
    assert "nothing to do" in made.doit(*MADE)


@pytest.mark.parametrize("task", ["chroot:java", "tree"])
def test_nothing_goes_when_a_record_cannot_be_read(made: Small, task: str) -> None:
    leave(made)
    made.layout.record(task).write_text('{"layers": 3}')
    printed = made.doit("gc", "--yes", code=1)
    assert f"the record of {task} is damaged" in printed
    assert "next: run `doit fsck --repair` first" in printed
    assert made.layout.export(COMMIT).is_dir()
    made.doit("fsck", "--repair")
    made.doit(*MADE)
    made.doit("gc", "--yes")
    assert not made.layout.export(COMMIT).exists()
    assert made.doit("fsck").startswith("all is well: ")


@pytest.mark.usefixtures("needs_sandbox")
def test_what_is_mounted_is_not_walked_into(made: Small, tmp_path: Path) -> None:
    """Fault 38: the deletion is refused, and what was behind the mount is intact."""
    behind = put(tmp_path / "behind/precious")
    point = put(made.layout.export(COMMIT) / "x/y").parent
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
    printed = made.doit("gc", "--yes", code=1, prefix=mounted)
    assert f"something is mounted at {point}" in printed
    assert behind.exists()
    made.doit("gc", "--yes")
    assert behind.exists()
    assert not point.exists()


def test_clean_is_of_what_is_named(made: Small) -> None:
    before, everything = made.records(), files(made.layout.state)
    printed = made.doit("clean", code=3)
    assert "name what is to be made again" in printed
    assert made.doit("clean", "--dry-run", "chroot:java").startswith("chroot:java: would delete ")
    assert files(made.layout.state) == everything
    layers = json.loads(before["chroot.java.json"])["layers"]
    printed = made.doit("clean", "chroot:java", "lock")
    assert "lock: nothing of it is ever put away" in printed
    assert not (made.layout.state / layers[0]).exists()
    assert all((made.layout.state / layer).is_dir() for layer in layers[1:])
    assert made.layout.lock.exists()
    assert made.doit("why", *MADE).startswith("chroot:java: ")
    assert ran(made.doit(*MADE)) == {"chroot:java"}
    assert made.records() == before
    made.doit("clean", "chroot", "seed:openrc")
    assert ran(made.doit(*MADE)) == {"seed:openrc", "chroot:base", "chroot:java"}
    assert made.records() == before
    assert made.doit("clean", "no:such", code=3).startswith("ERROR: ")


def test_clean_with_a_record_that_leads_astray(made: Small, tmp_path: Path) -> None:
    precious = put(tmp_path / "precious")
    made.layout.record("etc:base").write_text('{"path": "../../precious"}')
    made.doit("clean", "etc:base")
    assert precious.exists()
    made.layout.record("etc:base").write_text('{"path": "."}')
    made.doit("clean", "etc:base")
    assert ran(made.doit(*MADE)) == {"etc:base"}
