"""Events of a build: files for programs, notes for people, and the account at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.builder import account as accounts
from tasks.builder import events
from tasks.builder.events import BuildProgress, Event, PackageFailed, PackageReused, Running
from tasks.builder.failure import Failure, Kind, Missing
from tasks.builder.pool import Build, Outcome, Pool, Reuse, Success
from tasks.config.tables import Config
from tasks.flow import binpkgs, build_events
from tasks.layout import Layout
from tasks.planner.schedule import Job, Limits
from tasks.site import Chroot, Site
from tests.kit.configs import ONE_CHROOT
from tests.kit.project import PROJECT
from tests.kit.set_clock import SetClock

BROKEN = Failure(
    Kind.COMPILE,
    "compile",
    ("x.c:1:10: fatal error: zlib.h: No such file", "make: *** [x.o] Error 1"),
    Missing("header", "zlib.h"),
    Path("/logs/a:broken-1.log"),
)
HANGING = Failure(Kind.HANG, "test", ("test 7 ...",))
PROGRESS = BuildProgress(1, 3, 0, 60.0, (Running(1, "a/b-1", "compile", 3.0, 0.0),))


class Scripted:
    """Work in which some packages fail, and some exist already."""

    failures: Mapping[str, Failure] = {"a/hang-1": HANGING, "a/broken-1": BROKEN}
    reused: Mapping[str, Reuse] = {"a/old-1": Reuse(), "a/cut-1": Reuse(("a/lib-1",))}

    def decide(self, name: str) -> Build | Reuse:
        return self.reused.get(name, Build())

    def build(self, name: str) -> Outcome:
        return self.failures.get(name) or Success(memory=5, unchanged=name == "a/lib-1")

    def phase(self, _name: str) -> str:
        return ""


JOBS = {
    "a/lib-1": Job(),
    "a/old-1": Job(),
    "a/cut-1": Job(("a/lib-1",)),
    "a/hang-1": Job(("a/old-1",)),
    "a/broken-1": Job(("a/cut-1",)),
    "a/user-1": Job(("a/broken-1",)),
    "a/zz-1": Job(("a/user-1",)),
    "a/other-1": Job(("a/lib-1",)),
}


@pytest.fixture
def chroot(layout: Layout) -> Chroot:
    return Site(layout, Config.model_validate(ONE_CHROOT)).chroot("base")


def lines(chroot: Chroot) -> list[dict[str, Any]]:
    path = chroot.layout.run_logs / "binpkgs.base.events"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_account_names_every_package_that_is_missing(
    chroot: Chroot, capsys: pytest.CaptureFixture[str]
) -> None:
    with build_events.listener(chroot) as listen:
        account = Pool(JOBS, Limits(2), Scripted(), listen).run()
    assert accounts.failed(account, "base").message.splitlines() == [
        "2 packages of base failed, 2 skipped because of that",
        "  a/broken-1: compiling failed: x.c:1:10: fatal error: zlib.h: No such file",
        "    make: *** [x.o] Error 1",
        "    missing, probably an undeclared dependency: header zlib.h",
        "    log: /logs/a:broken-1.log",
        "    skipped because a/broken-1 failed: a/user-1, a/zz-1",
        "  a/hang-1: stopped in phase test, because it printed nothing for too long;"
        " last output: test 7 ...",
    ]
    totals = accounts.totals(account)
    assert {key: totals[key] for key in totals if key != "seconds"} == {
        "built": 2,
        "unchanged": 1,
        "reused": 1,
        "cut_off": 1,
        "failed": 2,
        "skipped": 2,
        "not_started": 0,
    }
    printed = [re.sub(r" in [\d.]+ s", "", line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(printed) == [
        "  a/cut-1: not rebuilt, because the new output of a/lib-1 is equal to the old one",
        "  built a/lib-1; its output is the same as before",
        "  built a/other-1",
        "  failed: a/broken-1: x.c:1:10: fatal error: zlib.h: No such file",
        "  failed: a/hang-1: test 7 ...",
    ]
    by_event: dict[str, list[str]] = {}
    for line in lines(chroot):
        by_event.setdefault(line["event"], []).append(line["package"])
    assert {event: sorted(packages) for event, packages in by_event.items()} == {
        "package-started": ["a/broken-1", "a/hang-1", "a/lib-1", "a/other-1"],
        "package-built": ["a/lib-1", "a/other-1"],
        "package-failed": ["a/broken-1", "a/hang-1"],
        "package-reused": ["a/cut-1", "a/old-1"],
        "package-skipped": ["a/user-1", "a/zz-1"],
    }


def test_events_are_lines_of_json_without_secrets(chroot: Chroot, clock: SetClock) -> None:
    """Masking them afterwards, as logs are, could cut a line."""
    clock.set(1_800_000_000)
    secrets = ("Authorization: Basic c2VjcmV0", "see https://me:secret@host/")
    with build_events.listener(chroot) as listen:
        listen(PackageFailed("a/b-1", 2.5, BROKEN, again=False))
        listen(PackageFailed("a/b-1", 2.5, Failure(Kind.FETCH, "", secrets), again=True))
    first, second = lines(chroot)
    assert first == {
        "event": "package-failed",
        "time": 1_800_000_000,
        "package": "a/b-1",
        "seconds": 2.5,
        "failure": {
            "kind": "compile",
            "phase": "compile",
            "lines": [BROKEN.lines[0], "make: *** [x.o] Error 1"],
            "missing": {"what": "header", "name": "zlib.h"},
            "log": "/logs/a:broken-1.log",
            "package": "",
            "buildroot": "",
        },
        "again": False,
    }
    assert second["failure"]["lines"] == ["Authorization: ***", "see https://***@host/"]
    assert second["failure"]["missing"] is None


def test_progress_is_there_while_packages_are_built(chroot: Chroot) -> None:
    log = chroot.log("binpkgs")
    with pytest.raises(KeyboardInterrupt), build_events.listener(chroot) as listen:
        listen(PROGRESS)
        data = json.loads((log.parent / "binpkgs.base.progress").read_text())
        assert (data["event"], data["running"][0]["package"]) == ("build-progress", "a/b-1")
        assert binpkgs.progress(log) == events.lines(PROGRESS)
        raise KeyboardInterrupt
    assert list(log.parent.iterdir()) == []


def test_progress_of_a_build_without_packages_is_that_of_emerge(chroot: Chroot) -> None:
    log = chroot.log("binpkgs")
    log.parent.mkdir(parents=True)
    log.write_text(">>> Emerging (3 of 10) dev-libs/a-1::gentoo\n")
    assert binpkgs.progress(log) == ["3 of 10 dev-libs/a-1"]


def test_build_goes_on_where_its_files_cannot_be_written(chroot: Chroot) -> None:
    for name in ("events", "progress.tmp"):
        (chroot.layout.run_logs / f"binpkgs.base.{name}").mkdir(parents=True)
    with build_events.listener(chroot) as listen:
        listen(PROGRESS)
        listen(PackageReused("a/b-1", ()))


KINDS = {kind.event: kind for kind in get_args(Event)}
OBJECTS = {"failure": Failure, "missing": Missing, "running": Running}


@pytest.mark.parametrize(("name", "kind"), [*KINDS.items(), *OBJECTS.items()])
def test_documentation_names_each_event_and_its_fields(name: str, kind: type[Any]) -> None:
    """In its row of the tables, and no other field."""
    text = (PROJECT / "docs/builds.md").read_text(encoding="utf-8").partition("## Events")[2]
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", text, re.MULTILINE)
    parts = [part.partition(":")[0] for part in row.split(";")]  # the rest is about values
    named = {field for part in parts for field in re.findall(r"`(\w+)`", part)}
    assert named == {field.name for field in fields(kind)}


def test_documentation_names_each_file_and_no_other_event() -> None:
    text = (PROJECT / "docs/builds.md").read_text(encoding="utf-8").partition("## Events")[2]
    rows = re.findall(r"^\| `((?:package|build)-[\w-]+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(KINDS)
    assert "`binpkgs.NAME.events`" in text
    assert "`binpkgs.NAME.progress`" in text
