"""doit's memory on disk: safe as soon as a task has ended."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from doit.dependency import Dependency, JSONCodec
from doit.exceptions import InvalidDodoFile
from doit.task import Task

from tasks.engine.backend import DurableBackend


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "a b" / "doit?x#y%.db"


@contextmanager
def open_database(place: Path) -> Iterator[Dependency]:
    memory = Dependency(DurableBackend, str(place), codec_cls=JSONCodec)
    try:
        yield memory
    finally:
        memory.close()


def on_disk(place: Path) -> dict[str, object]:
    """The records that another process would read now."""
    with closing(sqlite3.connect(place)) as database:
        rows = database.execute("select task_id, task_data from doit").fetchall()
    return {name: json.loads(data) for name, data in rows}


def finished_task(name: str, **values: object) -> Task:
    task = Task(name, [print])
    task.values = dict(values)
    return task


def test_on_disk_when_a_task_ends(place: Path) -> None:
    with open_database(place) as memory:
        memory.save_success(finished_task("one", digest="a"))
        assert on_disk(place) == {
            "one": {"_values_:": {"digest": "a"}, "checker:": "MD5Checker", "deps:": []}
        }
        memory.save_success(finished_task("two"))
        assert set(on_disk(place)) == {"one", "two"}
        memory.remove_success(finished_task("one"))
        assert set(on_disk(place)) == {"two"}


def test_deps_is_the_last_thing_that_doit_saves(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend depends on this; with another order in a new doit, work would be lost."""
    keys: list[str] = []
    real = DurableBackend.set

    def recording_set(self: DurableBackend, task: str, key: str, value: object) -> None:
        keys.append(key)
        real(self, task, key, value)

    monkeypatch.setattr(DurableBackend, "set", recording_set)
    task = finished_task("one", x=1)
    task.file_dep = {str(Path(__file__))}
    task.result = "text"
    with open_database(place) as memory:
        memory.save_success(task)
    assert keys[-1] == "deps:"
    assert keys.count("deps:") == 1


def test_read_again(place: Path) -> None:
    with open_database(place) as memory:
        memory.save_success(finished_task("one", digest="ü"))
    with open_database(place) as memory:
        assert memory.get_values("one") == {"digest": "ü"}
        assert memory.get_values("two") == {}


def test_forgotten_once_and_for_all(place: Path) -> None:
    with open_database(place) as memory:
        memory.save_success(finished_task("one"))
        memory.remove_all()
        memory.save_success(finished_task("two"))
    assert set(on_disk(place)) == {"two"}


def test_ignored_tasks_stay_ignored(place: Path) -> None:
    """`doit ignore` saves only a mark."""
    with open_database(place) as memory:
        memory.ignore(finished_task("one"))
    with open_database(place) as memory:
        assert memory.status_is_ignore(finished_task("one"))


def test_two_at_once(place: Path) -> None:
    with open_database(place) as one, open_database(place) as two:
        one.save_success(finished_task("one"))
        two.save_success(finished_task("two"))
        one.save_success(finished_task("three"))
    assert set(on_disk(place)) == {"one", "two", "three"}


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_damaged(place: Path, content: bytes) -> None:
    place.parent.mkdir()
    place.write_bytes(content)
    with pytest.raises(InvalidDodoFile) as excinfo, open_database(place):
        pass
    assert str(place) in str(excinfo.value)
    assert "doit fsck --repair" in str(excinfo.value)
    assert len(str(excinfo.value).splitlines()) == 2
    assert place.read_bytes() == content


def test_a_directory_in_its_place(place: Path) -> None:
    place.mkdir(parents=True)
    with pytest.raises(InvalidDodoFile, match="cannot be opened"), open_database(place):
        pass
