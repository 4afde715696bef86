"""The history of builds: what it expects, what it keeps, and that damage does no harm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tasks.planner import history
from tasks.planner.history import History, PastBuild, add, expected, read
from tasks.planner.schedule import Expectation


def test_median_of_the_newest_builds_of_a_version_counts() -> None:
    seconds = [900.0, 10, 11, 12, 13, 500]
    past = History().with_builds([("a/b-1", each, 5) for each in seconds])
    assert past.of("a/b-1") == Expectation(12, 5)


def test_other_versions_count_where_there_is_none_of_this_one() -> None:
    past = History().with_builds([("a/b-1", 10.0, 0), ("a/b-2-r1", 30.0, 7), ("a/b-c-1", 99.0, 0)])
    assert past.of("a/b-1") == Expectation(10, 0)
    assert past.of("a/b-3") == Expectation(20, 7)
    assert past.of("a/other-1") is None


def test_unknown_package_is_expected_by_the_size_of_its_distfiles() -> None:
    result = expected({"a/small-1": 0, "a/large-1": 100_000_000}, History())
    assert result["a/small-1"].seconds < 20
    assert result["a/large-1"].seconds > 600


def test_rate_of_this_machine_is_the_median_of_its_history() -> None:
    sizes = {f"a/p{n}-1": 10_000_000 for n in range(5)}
    past = History().with_builds([(cpv, 28.0, 3 << 30) for cpv in sizes])
    result = expected({**sizes, "a/new-1": 20_000_000}, past)
    assert result["a/new-1"] == Expectation(48.0, 3 << 30)
    assert result["a/p0-1"] == Expectation(28.0, 3 << 30)


def test_newest_builds_and_packages_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_PACKAGES", 2)
    past = History().with_builds([("a/x-1", float(n), 0) for n in range(20)])
    assert [build.seconds for build in past.builds["a/x"]] == list(range(12, 20))
    past = past.with_builds([("a/y-1", 1.0, 0), ("a/x-2", 1.0, 0), ("a/z-1", 1.0, 0)])
    assert list(past.builds) == ["a/x", "a/z"]


def test_file_has_what_was_added(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.json"
    add(path, [("a/b-1", 1.234, 5)])
    add(path, [("a/b-2", 7.0, 0), ("unit of two", 3.0, 0)])
    assert read(path).builds == {
        "a/b": (PastBuild("1", 1.23, 5), PastBuild("2", 7.0, 0)),
        "unit of two": (PastBuild("", 3.0, 0),),
    }


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"version": 2, "packages": {}}',
    b'{"version": 1, "packages": []}',
    b'{"version": 1}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"version": 1, "packages": {"a/b": 3, "a/c": [], "a/d": [[]], "a/e": [["1", "2", 3]]}}',
    b'{"version": 1, "packages": {"a/b": [["1", NaN, 3], ["1", Infinity, 3], ["1", -1, 3]]}}',
    b'{"version": 1, "packages": {"a/b": [["1", 1e99, 3], ["1", true, 3], ["1", 1, 1.5]]}}',
    b'{"version": 1, "packages": {"a/b": [[1, 1, 1], ["1", 1, -1], ["1", 1], "111", null]}}',
    b'{"version": 1, "packages": {"a/b": [["1", 1' + b"0" * 400 + b", 1]]}}",
]


@pytest.mark.parametrize("raw", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_history_is_an_empty_one(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "history.json"
    path.write_bytes(raw)
    assert read(path) == History()
    add(path, [("a/b-1", 1.0, 0)])
    assert read(path).builds == {"a/b": (PastBuild("1", 1.0, 0),)}


def test_sound_builds_beside_damaged_ones_count(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    packages = {"a/b": [["1", 5.0, 1], "odd", ["2", 7, 0]], "a/c": "odd"}
    path.write_text(json.dumps({"version": 1, "packages": packages}))
    assert read(path).builds == {"a/b": (PastBuild("1", 5.0, 1), PastBuild("2", 7, 0))}


@pytest.mark.parametrize("kind", ["folder", "pipe", "nothing"])
def test_what_is_no_file_is_an_empty_history(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "history.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    assert read(path) == History()


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    with path.open("wb") as stream:
        stream.truncate(history._LARGEST + 1)
    assert read(path) == History()
