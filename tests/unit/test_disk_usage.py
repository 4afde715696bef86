"""Disk usage: true sizes, and none measured twice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.system import disk_usage
from tasks.system.disk_usage import disk_size, record_sizes, usage

FOREVER = float("inf")


def tree(path: Path, *sizes: int) -> Path:
    """Write files of these sizes below a new folder."""
    for number, size in enumerate(sizes):
        file = path / str(number) / "file"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * size)
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder of results: a large tree, and something that changes."""
    tree(tmp_path / "state/seeds/one", 100_000, 200_000)
    tree(tmp_path / "state/logs", 10_000)
    return tmp_path / "state"


@pytest.fixture
def walked_folders(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are walked."""
    folders: list[Path] = []
    real = disk_usage._entries

    def entries(folder: str) -> Iterator[os.DirEntry[str]]:
        folders.append(Path(folder))
        return real(folder)

    monkeypatch.setattr(disk_usage, "_entries", entries)
    return folders


def test_disk_size_counts_a_file_with_two_names_once(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", 100_000)
    size = disk_size(one)
    assert 100_000 <= size < 200_000
    os.link(one / "0/file", one / "again")
    assert disk_size(one) == size
    assert disk_size(tmp_path / "nothing") == 0


def test_disk_size_follows_no_link(tmp_path: Path) -> None:
    tree(tmp_path / "outside", 1_000_000)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/link").symlink_to(tmp_path / "outside")
    assert disk_size(tmp_path / "inside") < 100_000


def test_usage_without_records_walks_everything(state: Path) -> None:
    report = usage(state, state / "sizes.json", FOREVER)
    assert report.complete
    assert report.parts == {name: disk_size(state / name) for name in ("logs", "seeds")}


def test_usage_is_the_same_with_records_and_does_not_walk_them(
    state: Path, walked_folders: list[Path]
) -> None:
    before = usage(state, state / "sizes.json", FOREVER)
    record_sizes(state / "sizes.json", (state / "seeds").iterdir())
    walked_folders.clear()
    after = usage(state, state / "sizes.json", FOREVER)
    assert after.parts["seeds"] == before.parts["seeds"]
    assert after.complete
    assert state / "logs" in walked_folders
    assert state / "seeds/one" not in walked_folders


def test_record_sizes_measures_each_tree_once(state: Path, walked_folders: list[Path]) -> None:
    sizes = state / "sizes.json"
    record_sizes(sizes, (state / "seeds").iterdir())
    mtime = sizes.stat().st_mtime_ns
    tree(state / "seeds/two", 1000)
    walked_folders.clear()
    record_sizes(sizes, sorted((state / "seeds").iterdir()))
    assert state / "seeds/one" not in walked_folders
    assert state / "seeds/two" in walked_folders
    assert sizes.stat().st_mtime_ns != mtime
    mtime = sizes.stat().st_mtime_ns
    record_sizes(sizes, (state / "seeds").iterdir())
    assert sizes.stat().st_mtime_ns == mtime


def test_size_of_a_replaced_tree_is_not_used(state: Path) -> None:
    sizes = state / "sizes.json"
    record_sizes(sizes, (state / "seeds").iterdir())
    (state / "seeds/one").rename(state / "logs/old")
    tree(state / "seeds/one", 1000)
    assert usage(state, sizes, FOREVER).parts["seeds"] == disk_size(state / "seeds")
    record_sizes(sizes, (state / "seeds").iterdir())
    assert usage(state, sizes, FOREVER).parts["seeds"] == disk_size(state / "seeds")


def test_size_of_a_deleted_tree_is_dropped(state: Path) -> None:
    sizes = state / "sizes.json"
    record_sizes(sizes, (state / "seeds").iterdir())
    record_sizes(sizes, [state / "seeds/gone"])
    assert sizes.read_text() == "{}\n"


def test_usage_is_not_complete_when_the_time_is_up(state: Path) -> None:
    record_sizes(state / "sizes.json", (state / "seeds").iterdir())
    assert not usage(state, state / "sizes.json", time.monotonic()).complete


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"x": "y"}', "null", '{"x": null}', '{"x": [1]}', '{"x": 5}']
)
def test_damaged_file_is_ignored(state: Path, text: str) -> None:
    sizes = state / "sizes.json"
    sizes.write_text(text)
    report = usage(state, sizes, FOREVER)
    assert report.parts["seeds"] == disk_size(state / "seeds")
    record_sizes(sizes, (state / "seeds").iterdir())
    assert usage(state, sizes, FOREVER).parts["seeds"] == report.parts["seeds"]


def test_file_that_cannot_be_written_is_no_error(state: Path) -> None:
    (state / "sizes.json").mkdir()
    record_sizes(state / "sizes.json", (state / "seeds").iterdir())
