"""Steps without doit's run: the record protocol, what a person is told, what counts as fresh."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doit.exceptions import TaskFailed
from doit.task import Task

from tasks import records
from tasks.engine.on_demand import Asked, Named, WhenNamed
from tasks.engine.step import Below, Fact, Present, Step, as_typed, carry_out, told
from tasks.engine.step import interactive as interactive_task
from tasks.errors import BinmillError, Busy, NotTrusted, Stale
from tasks.layout import Layout
from tasks.system.files import locked
from tests.kit.files import names


def step(make: Callable[..., Any] = dict, task: str = "chroot:java") -> Step:
    return Step(task, "make something", make)


def run(layout: Layout, what: Step) -> TaskFailed | None:
    """Carry it out; what doit is to remember of a success is the record's digest."""
    ended = carry_out(layout, what, Task(what.task, []))
    if isinstance(ended, TaskFailed):
        return ended
    assert ended == {"record": digest(layout.record(what.task))}
    return None


def digest(record: Path) -> str:
    return hashlib.sha256(record.read_bytes()).hexdigest() if record.exists() else ""


def present(check: Present) -> bool:
    """Its answer where doit remembers this very record."""
    return check(Task("x", []), {"record": digest(check.record)})


def test_the_record_is_sorted_and_small(layout: Layout) -> None:
    assert run(layout, step(lambda: {"b": [1], "a": "ü"})) is None
    text = layout.record("chroot:java").read_text()
    assert list(json.loads(text)) == ["a", "b"]
    assert text.endswith("}\n")
    assert records.read(layout, "chroot:java") == {"b": [1], "a": "ü"}
    assert names(layout.record("chroot:java").parent) == ["chroot.java.json"]


def test_no_record_while_it_is_made(layout: Layout) -> None:
    seen = []

    def make() -> dict[str, str]:
        seen.append(layout.record("chroot:java").exists())
        return {"x": "y"}

    for _ in range(2):
        assert run(layout, step(make)) is None
    assert seen == [False, False]
    assert layout.record("chroot:java").exists()


def test_only_one_at_a_time(layout: Layout) -> None:
    with locked(layout.task_lock("chroot:java"), "x"):
        failed = run(layout, step())
    assert failed is not None
    assert "locked by another run" in failed.message
    assert str(os.getpid()) in failed.message
    assert run(layout, step()) is None


def raises(error: BaseException) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        raise error

    return make


@pytest.mark.parametrize(
    "error",
    [
        NotTrusted("x"),
        OSError(28, "full"),
        KeyError("bug"),
        KeyboardInterrupt(),
        SystemExit(143),
        GeneratorExit(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_the_earlier_record_is_back(layout: Layout, error: BaseException) -> None:
    run(layout, step(lambda: {"n": 1}))
    if isinstance(error, BinmillError | OSError):
        assert run(layout, step(raises(error))) is not None
    else:
        with pytest.raises(type(error)):
            run(layout, step(raises(error)))
    assert records.read(layout, "chroot:java") == {"n": 1}
    assert names(layout.record("chroot:java").parent) == ["chroot.java.json"]


def test_also_when_the_new_one_cannot_be_written(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(layout, step(lambda: {"n": 1}))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk")

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomic", full)
        failed = run(layout, step(lambda: {"n": 2}))
    assert failed is not None
    assert "No space left on device: /disk" in failed.message
    assert records.read(layout, "chroot:java") == {"n": 1}


def test_no_record_yet(layout: Layout) -> None:
    with pytest.raises(Stale, match="chroot:java has not been made yet") as stale:
        records.read(layout, "chroot:java")
    assert stale.value.hint == "run `doit chroot:java`"
    layout.record("chroot:java").parent.mkdir(parents=True)
    layout.record("chroot:java").write_bytes(b"\xff{")
    with pytest.raises(Stale):
        records.read(layout, "chroot:java")


TOLD: list[tuple[BaseException, str]] = [
    (NotTrusted("bad"), "bad"),
    (Busy("busy", "wait"), "busy\n  next: wait"),
    (FileNotFoundError(2, "No such file", "/a"), "it: No such file: /a\n  next: "),
    (OSError(2, "No such file", b"/b"), "it: No such file: b'/b'\n  next: "),
    (OSError(28, "No space", 7), "it: No space: 7\n  next: "),
    (OSError("in words"), "it: in words\n  next: "),
    (BrokenPipeError(), "it: BrokenPipeError\n  next: "),
    (TimeoutError(), "it: TimeoutError\n  next: "),
]


@pytest.mark.parametrize(("error", "text"), TOLD, ids=[repr(error) for error, _ in TOLD])
def test_told(error: BaseException, text: str) -> None:
    failed = told(raises(error), "it")  # type: ignore[arg-type]
    assert failed is not None
    assert failed.message.startswith(text)


@pytest.mark.parametrize("error", [ValueError("bug"), AssertionError(), MemoryError(), SystemExit])
def test_a_bug_is_not_told_but_shown(error: BaseException) -> None:
    with pytest.raises(error if isinstance(error, type) else type(error)):
        told(raises(error), "it")  # type: ignore[arg-type]


def test_all_went_well() -> None:
    assert told(lambda: None, "it") is None


# --- up-to-date checks never raise: doit would take that for a bug -----------


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"3",
        b'"x"',
        b"null",
        b"{}",
        b'{"path": 3}',
        b'{"path": null}',
        b'{"path": "nowhere"}',
        b'{"path": "a\\u0000b"}',
    ],
)
def test_what_is_not_there_is_not_present(tmp_path: Path, content: bytes | None) -> None:
    record = tmp_path / "x.json"
    if content is not None:
        record.write_bytes(content)
    check = Present(record, lambda made: [tmp_path / made["path"].strip()])
    assert present(check) is False


def test_a_record_that_the_task_did_not_write_is_not_present(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    record.write_text("{}")
    check = Present(record, lambda _: [])
    assert present(check) is True
    for remembered in ({}, {"record": "0" * 64}):
        assert check(Task("x", []), remembered) is False


def test_present(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    record.write_text('{"paths": ["a", "b"]}')
    check = Present(record, lambda made: [tmp_path / name for name in made["paths"]])
    (tmp_path / "a").mkdir()
    assert present(check) is False
    (tmp_path / "b").touch()
    assert present(check) is True
    (tmp_path / "b").unlink()
    (tmp_path / "b").symlink_to("nowhere")
    assert present(check) is False


def below(folder: Path, values: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """What the check says, and what it would remember."""
    task = Task("x", [])
    fresh = Below(folder)(task, values)
    (saver,) = task.value_savers
    return fresh, saver()


def test_below(tmp_path: Path) -> None:
    folder = tmp_path / "portage"
    fresh, empty = below(folder, {})
    assert not fresh
    assert below(folder, empty)[0]
    folder.mkdir()
    assert below(folder, empty)[0]
    (folder / "a").mkdir()
    (folder / "a" / "b").write_text("x")
    fresh, one = below(folder, empty)
    assert not fresh
    assert below(folder, one)[0]
    (folder / "a" / "b").rename(folder / "b")
    assert not below(folder, one)[0]
    (folder / "b").rename(folder / "a" / "b")
    assert below(folder, one)[0]
    (folder / "a" / "b").write_text("y")
    assert not below(folder, one)[0]


def test_below_a_folder_with_odd_things_in_it(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / os.fsdecode(b"not-utf8-\xff")).write_text("x")
    (tmp_path / "new\nline").write_text("x")
    fresh, held = below(tmp_path, {})
    assert not fresh
    assert below(tmp_path, held)[0]


def test_a_fact_says_what_does_not_hold() -> None:
    fact = Fact(lambda: False, "the lock is gone")
    assert fact() is False
    assert "the lock is gone" in repr(fact)


# --- the tasks that doit gets -------------------------------------------------


def test_as_task(layout: Layout) -> None:
    whole = Step(
        "chroot:java",
        "make java",
        dict,
        needs=("seed:x",),
        files=(layout.lock,),
        inputs={"b": 1, "a": [2]},
    )
    task = whole.as_task(layout)
    assert (task["basename"], task["name"], task["doc"]) == ("chroot", "java", "make java")
    assert task["targets"] == [str(layout.record("chroot:java"))]
    assert task["file_dep"] == [str(layout.record("seed:x")), str(layout.lock)]
    assert "name" not in Step("tree", "x", dict).as_task(layout)
    turned = Step("chroot:java", "x", dict, inputs={"a": [2], "b": 1}).as_task(layout)
    assert task["uptodate"][0].config == turned["uptodate"][0].config


@pytest.mark.parametrize(("args", "asked"), [(None, False), ([], True), (["x"], True)])
def test_asked(layout: Layout, args: list[str] | None, asked: bool) -> None:
    seen = []
    task = Step("snapshot", "x", lambda *, asked: seen.append(asked) or {}).as_asked_task(  # type: ignore[func-returns-value]
        layout, layout.record("snapshot")
    )
    task.init_options(args)
    task.init_options()  # doit does so again before it runs
    assert isinstance(task, Asked)
    assert task.asked is asked
    function, (where, what) = task._actions[0]
    assert set(function(where, what, task)) == {"record"}
    assert seen == [asked]


@pytest.mark.parametrize("args", [None, [], ["x"]])
@pytest.mark.parametrize("holds", [True, False])
def test_what_must_hold_for_those_who_name_it(
    layout: Layout, args: list[str] | None, holds: bool
) -> None:
    seen = []
    check = WhenNamed(lambda: holds, "it is held")
    task = Step(
        "publish:java",
        "x",
        lambda *, asked: seen.append(asked) or {},  # type: ignore[func-returns-value]
        when_named=check,
    ).as_named_task(layout)
    assert (task.name, task.subtask_of) == ("publish:java", "publish")
    task.init_options(args)
    task.init_options()
    assert isinstance(task, Named) and not isinstance(task, Asked)
    assert check(task, {}) is (args is None or holds)
    assert "it is held" in repr(check)
    function, (where, what) = task._actions[0]
    assert set(function(where, what, task)) == {"record"}
    assert seen == [args is not None]


def test_options_of_a_task_for_people_become_words() -> None:
    seen: list[list[str]] = []
    (attend,) = interactive_task(seen.append, "x")["actions"]
    task = Task("rollback:java", [])
    task.options = {"to": "3", "json": True, "list": False, "none": ""}
    assert attend(task, None) is None
    assert seen == [["--to", "3", "--json"]]


@pytest.mark.parametrize(
    ("argv", "words", "typed"),
    [
        (["doit", "enter"], [], []),
        (["doit", "enter", "java"], ["java"], ["java"]),
        (
            ["doit", "enter", "java", "--", "env", "A=b"],
            ["java", "--", "env"],
            ["java", "--", "env", "A=b"],
        ),
        (["doit", "X=y", "enter", "java", "A=b", "c"], ["java", "c"], ["java", "A=b", "c"]),
        (["doit", "enter", "java", "--x=y"], ["java", "--x=y"], ["java", "--x=y"]),
        (["pytest", "a=b"], ["java"], ["java"]),  # not from this command line
        (["doit", "-f", "enter", "enter", "java", "a=b"], ["java"], ["java"]),  # no guessing
    ],
)
def test_as_typed(argv: list[str], words: list[str], typed: list[str]) -> None:
    assert as_typed("enter", words, argv) == typed


@pytest.mark.parametrize(("code", "ends"), [(None, None), (0, None), (7, 7), (130, 130)])
def test_interactive_ends_as_the_command_did(code: int | None, ends: int | None) -> None:
    (attend,) = interactive_task(lambda _words: code, "x")["actions"]
    if ends is None:
        assert attend(Task("enter", []), []) is None
    else:
        with pytest.raises(SystemExit) as left:
            attend(Task("enter", []), [])
        assert left.value.code == ends
