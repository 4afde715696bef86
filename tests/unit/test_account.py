"""The account and the progress of a build, as data and as lines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks import messages
from tasks.builder import account, events
from tasks.builder.account import (
    Account,
    BuiltPackage,
    CutOffPackage,
    FailedPackage,
    SkippedPackage,
)
from tasks.builder.events import BuildProgress, PackageFailed, Running
from tasks.builder.failure import Failure, Kind, Missing

COMPILE = Failure(
    Kind.COMPILE,
    "compile",
    ("tif_zip.c:55:10: fatal error: libdeflate.h: No such file or directory", "emake failed"),
    Missing("header", "libdeflate.h"),
    Path("/logs/tiff"),
)
HANG = Failure(Kind.HANG, "test", ())
WHOLE = Account(
    built=(BuiltPackage("a/b-1", 3.0), BuiltPackage("a/c-1", 4.0, unchanged=True)),
    reused=("a/d-1",),
    cut_off=(CutOffPackage("a/e-1", ("a/c-1",)),),
    failed=(FailedPackage("media-libs/tiff-4.6.0", COMPILE, 9.0), FailedPackage("a/h-1", HANG, 1)),
    skipped=(
        SkippedPackage("a/f-1", "media-libs/tiff-4.6.0"),
        SkippedPackage("a/g-1", "media-libs/tiff-4.6.0"),
    ),
    not_started=("a/z-1",),
    seconds=64.0,
)


def test_error_of_a_build_reads_well() -> None:
    """By class, not in the order in which they failed."""
    turned = replace(WHOLE, failed=WHOLE.failed[::-1])
    assert account.failed(turned, "java").message.splitlines() == [
        "2 packages of java failed, 2 skipped because of that",
        "  media-libs/tiff-4.6.0: compiling failed: tif_zip.c:55:10: fatal error: libdeflate.h:"
        " No such file or directory",
        "    emake failed",
        "    missing, probably an undeclared dependency: header libdeflate.h",
        "    log: /logs/tiff",
        "    skipped because media-libs/tiff-4.6.0 failed: a/f-1, a/g-1",
        "  a/h-1: stopped in phase test, because it printed nothing for too long; last output: ",
    ]
    assert messages.sentence("build-account", account.totals(WHOLE)) == (
        "2 built, 1 of them with the same output as before, 1 reused, 1 cut off, 2 failed,"
        " 2 skipped, 1 not started, 1 min 4 s"
    )


def test_each_class_has_a_sentence() -> None:
    for kind in Kind:
        failure = Failure(kind, "", ("why",))
        error = account.failed(Account(failed=(FailedPackage("a/b-1", failure, 1.0),)), "java")
        _total, line = error.message.splitlines()
        assert line.startswith("  a/b-1: ")
        assert line.endswith("why")


def test_error_names_every_failed_package() -> None:
    many = tuple(FailedPackage(f"a/p{n}-1", COMPILE, 1.0) for n in range(100))
    error = account.failed(Account(failed=many), "base")
    assert error.code == "packages-failed"
    assert all(f"\n  a/p{n}-1: " in error.message for n in range(100))


def test_account_is_complete_only_without_gaps() -> None:
    assert Account(built=WHOLE.built, reused=WHOLE.reused, cut_off=WHOLE.cut_off).complete
    assert not Account(not_started=("a/b-1",)).complete


def test_progress_has_a_line_for_each_buildroot_and_a_total() -> None:
    progress = BuildProgress(
        12,
        1051,
        2,
        183.0,
        (
            Running(1, "dev-libs/a-1", "compile", 63.0, 120.0),
            Running(2, "dev-libs/long-name-1.2", "", 1.0, 0.0),
        ),
    )
    assert events.lines(progress) == [
        " 1 dev-libs/a-1           compile    1 min 3 s of about 2 min",
        " 2 dev-libs/long-name-1.2            1.0 s",
        "12 of 1,051 packages, 2 failed, about 3 min left",
    ]
    data = json.loads(json.dumps(events.plain(progress)))
    assert events.parse_progress(data) == progress


def test_progress_of_another_version_is_refused() -> None:
    other: list[dict[str, Any]] = [{}, {"running": [{"slot": 1}]}]
    for data in other:
        with pytest.raises(ValueError, match="no progress"):
            events.parse_progress(data)


def test_phase_of_a_hostile_build_is_printable() -> None:
    running = (Running(1, "a/b-1", "\x1b[31mcompile\nx" * 9, 1.0, 0.0),)
    for line in events.lines(BuildProgress(0, 1, 0, 0.0, running)):
        assert line.isprintable()
        assert len(line) < 80


def test_event_is_json() -> None:
    event = PackageFailed("a/b-1", 2.0, COMPILE, again=False)
    data = json.loads(json.dumps(events.plain(event)))
    assert data["event"] == "package-failed"
    assert data["failure"]["kind"] == "compile"
    assert data["failure"]["missing"] == {"what": "header", "name": "libdeflate.h"}
    assert data["failure"]["log"] == "/logs/tiff"
