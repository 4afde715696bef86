"""Steps without doit's run: the record protocol, known failures, up-to-date checks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doit.exceptions import TaskFailed
from doit.task import Task

from tasks import records
from tasks.causes import NeverMade, RollbackEnds
from tasks.commands.site_command import as_typed
from tasks.engine.action import run_step
from tasks.engine.checks import Fact, FilesUnchanged, ResultsExist
from tasks.engine.on_demand import OnDemandTask, RequestedTask, WhenNamed
from tasks.engine.step import Option, Step, as_task
from tasks.errors import BinmillError, NotTrusted, Stale, describe, failure
from tasks.layout import Layout
from tasks.records import Inputs, Kind, UndeclaredInput
from tasks.system.files import locked
from tests.kit.files import names


@dataclass(frozen=True)
class Sample:
    """A record; its fields are not in alphabetical order."""

    text: str = ""
    number: int = 0


KEY, OTHER = Kind("sample", Sample)("java"), Kind("other", Sample)("java")
NAME = "sample.java.json"


def step(make: Callable[[Inputs], Sample] = lambda _: Sample(), **more: Any) -> Step[Sample]:
    return Step(KEY, "make something", make, **more)


def run(layout: Layout, what: Step[Sample]) -> TaskFailed | None:
    """Run a step; returns its error, and checks that doit remembers the digest of the record."""
    ended = run_step(layout, what, Task(what.task, []))
    if isinstance(ended, TaskFailed):
        return ended
    assert ended == {"record": digest(layout.record(what.task))}
    return None


def digest(record: Path) -> str:
    return hashlib.sha256(record.read_bytes()).hexdigest() if record.exists() else ""


def test_record_is_sorted_text(layout: Layout) -> None:
    assert run(layout, step(lambda _: Sample("ü", 1))) is None
    text = layout.record(KEY.task).read_text()
    assert list(json.loads(text)) == ["number", "text"]
    assert text.endswith("}\n")
    assert records.load(layout, KEY) == Sample("ü", 1)
    assert names(layout.record(KEY.task).parent) == [NAME]


def test_record_is_absent_while_its_task_runs(layout: Layout) -> None:
    present = []

    def make(_: Inputs) -> Sample:
        present.append(layout.record(KEY.task).exists())
        return Sample()

    for _ in range(2):
        assert run(layout, step(make)) is None
    assert present == [False, False]
    assert layout.record(KEY.task).exists()


def test_step_is_run_by_one_process_at_a_time(layout: Layout) -> None:
    with locked(layout.task_lock(KEY.task), "x"):
        error = run(layout, step())
    assert error is not None
    assert str(os.getpid()) in error.message
    assert run(layout, step()) is None


def test_undeclared_input_raises(layout: Layout) -> None:
    records.save(layout, OTHER, Sample("other"))

    def make(inputs: Inputs) -> Sample:
        return inputs[OTHER]

    with pytest.raises(UndeclaredInput, match="other:java is not declared; declared: nothing"):
        run(layout, step(make))
    assert run(layout, step(make, reads=(OTHER,))) is None
    assert records.load(layout, KEY) == Sample("other")


def test_undeclared_lock_raises(layout: Layout) -> None:
    with pytest.raises(UndeclaredInput):
        Inputs(layout, frozenset([KEY])).lock()


def raises(error: BaseException) -> Callable[..., Any]:
    def make(*_: object) -> Any:
        raise error

    return make


SAMPLE_ERROR = NotTrusted("stage-pointer-empty", stage="x")


@pytest.mark.parametrize(
    "error",
    [
        SAMPLE_ERROR,
        OSError(28, "full"),
        KeyError("bug"),
        KeyboardInterrupt(),
        SystemExit(143),
        GeneratorExit(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_failed_step_keeps_the_earlier_record(layout: Layout, error: BaseException) -> None:
    run(layout, step(lambda _: Sample(number=1)))
    if isinstance(error, BinmillError | OSError):
        assert run(layout, step(raises(error))) is not None
    else:
        with pytest.raises(type(error)):
            run(layout, step(raises(error)))
    assert records.load(layout, KEY) == Sample(number=1)
    assert names(layout.record(KEY.task).parent) == [NAME]


def test_record_that_cannot_be_written_keeps_the_earlier_one(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(layout, step(lambda _: Sample(number=1)))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk")

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomic", full)
        error = run(layout, step(lambda _: Sample(number=2)))
    assert error is not None
    assert "No space left on device: /disk" in error.message
    assert records.load(layout, KEY) == Sample(number=1)


@pytest.mark.parametrize("content", [None, b"\xff{", b"{}", b'{"text": "", "number": "1"}'])
def test_missing_or_damaged_record_is_stale(layout: Layout, content: bytes | None) -> None:
    tree = records.TREE()
    if content is not None:
        layout.record(tree.task).parent.mkdir(parents=True)
        layout.record(tree.task).write_bytes(content)
    with pytest.raises(Stale) as stale:
        records.load(layout, tree)
    assert (stale.value.code, stale.value.fields) == ("record-missing", {"task": "tree"})


SYSTEM_ERRORS: list[tuple[OSError, str, str]] = [
    (FileNotFoundError(2, "No such file", "/a"), "No such file", ": /a"),
    (OSError(2, "No such file", b"/b"), "No such file", ": b'/b'"),
    (OSError(28, "No space", 7), "No space", ": 7"),
    (OSError("in words"), "in words", ""),
    (BrokenPipeError(), "BrokenPipeError", ""),
    (TimeoutError(), "TimeoutError", ""),
]


@pytest.mark.parametrize(
    ("error", "reason", "where"), SYSTEM_ERRORS, ids=[repr(each[0]) for each in SYSTEM_ERRORS]
)
def test_system_error_gets_a_code(error: OSError, reason: str, where: str) -> None:
    result = failure(raises(error), "it")
    assert result is not None
    assert result.code == "system-error"
    assert result.fields == {"subject": "it", "reason": reason, "where": where}


@pytest.mark.parametrize(
    ("user", "code"), [(0, "permission-denied"), (1000, "permission-denied-user")]
)
def test_permission_error_gets_a_code(
    monkeypatch: pytest.MonkeyPatch, user: int, code: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    result = failure(raises(PermissionError(13, "Permission denied", "/a")), "it")
    assert result is not None
    assert (result.code, result.fields) == (code, {"subject": "it", "path": "/a"})


def test_error_of_a_task_is_its_failure() -> None:
    assert failure(raises(SAMPLE_ERROR), "it") is SAMPLE_ERROR
    assert failure(lambda: None, "it") is None


@pytest.mark.parametrize("error", [ValueError("bug"), AssertionError(), MemoryError(), SystemExit])
def test_bug_is_not_a_failure(error: BaseException) -> None:
    with pytest.raises(error if isinstance(error, type) else type(error)):
        failure(raises(error), "it")


def test_described_error_has_its_code_and_advice() -> None:
    first, second = describe(SAMPLE_ERROR).splitlines()
    assert first == f"{SAMPLE_ERROR.message} [stage-pointer-empty]"
    assert second == f"  next: {SAMPLE_ERROR.hint}"


# --- up-to-date checks never raise: doit would report that as a bug -----------


def exists(record: Path, results: Callable[[Any], Iterable[Path]] = lambda _: ()) -> bool:
    """The check's answer where doit remembers this very record."""
    check = ResultsExist(record, lambda raw: results(json.loads(raw)))
    return check(Task("x", []), {"record": digest(record)})


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b'{"path": "a\\u0000b"}'])
def test_results_of_an_unreadable_record_do_not_exist(
    tmp_path: Path, content: bytes | None
) -> None:
    record = tmp_path / "x.json"
    if content is not None:
        record.write_bytes(content)
    assert exists(record, lambda fields: [tmp_path / fields["path"]]) is False


def test_results_do_not_exist_for_a_record_that_the_task_did_not_write(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    record.write_text("{}")
    assert exists(record) is True
    for remembered in ({}, {"record": "0" * 64}):
        assert ResultsExist(record, lambda _: ())(Task("x", []), remembered) is False


def test_results_exist_when_every_path_does(tmp_path: Path) -> None:
    record = tmp_path / "x.json"
    record.write_text('["a", "b"]')

    def results(paths: list[str]) -> list[Path]:
        return [tmp_path / name for name in paths]

    (tmp_path / "a").mkdir()
    assert exists(record, results) is False
    (tmp_path / "b").touch()
    assert exists(record, results) is True
    (tmp_path / "b").unlink()
    (tmp_path / "b").symlink_to("nowhere")
    assert exists(record, results) is False


def check_files(folder: Path, values: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """The check's answer, and the values that doit would remember."""
    task = Task("x", [])
    answer = FilesUnchanged(folder)(task, values)
    (saver,) = task.value_savers
    return answer, saver()


def test_files_unchanged_compares_names_and_content(tmp_path: Path) -> None:
    folder = tmp_path / "portage"
    answer, empty = check_files(folder, {})
    assert not answer
    assert check_files(folder, empty)[0]
    folder.mkdir()
    assert check_files(folder, empty)[0]
    (folder / "a").mkdir()
    (folder / "a" / "b").write_text("x")
    answer, one = check_files(folder, empty)
    assert not answer
    assert check_files(folder, one)[0]
    (folder / "a" / "b").rename(folder / "b")
    assert not check_files(folder, one)[0]
    (folder / "b").rename(folder / "a" / "b")
    assert check_files(folder, one)[0]
    (folder / "a" / "b").write_text("y")
    assert not check_files(folder, one)[0]


def test_files_unchanged_with_odd_files(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / os.fsdecode(b"not-utf8-\xff")).write_text("x")
    (tmp_path / "new\nline").write_text("x")
    answer, values = check_files(tmp_path, {})
    assert not answer
    assert check_files(tmp_path, values)[0]


def test_fact_gives_its_cause() -> None:
    fact = Fact(lambda: False, NeverMade)
    assert fact(Task("x", []), {}) is False
    assert fact.cause({}) == NeverMade()


# --- the tasks that doit gets -------------------------------------------------


def test_task_of_a_step(layout: Layout) -> None:
    whole = step(reads=(OTHER,), files=(layout.lock,), settings={"b": 1, "a": [2]})
    task = as_task(whole, layout)
    assert (task.name, task.subtask_of, task.doc) == ("sample:java", "sample", "make something")
    assert task.targets == [str(layout.record("sample:java"))]
    assert task.file_dep == {str(layout.record("other:java")), str(layout.lock)}
    tree: Step[Sample] = Step(Kind("tree", Sample)(), "x", lambda _: Sample())
    assert as_task(tree, layout).subtask_of is None


def settings(task: Task) -> Any:
    return task.uptodate[0][0].config


def test_order_of_settings_does_not_matter(layout: Layout) -> None:
    one, two = ({"b": 1, "a": [2]}, {"a": [2], "b": 1})
    assert settings(as_task(step(settings=one), layout)) == settings(
        as_task(step(settings=two), layout)
    )


def test_task_can_be_sent_to_a_worker(layout: Layout) -> None:
    """`doit -n` pickles every task; the functions of a step cannot be."""
    task = as_task(step(results=lambda _: [], checks=(Fact(lambda: True, NeverMade),)), layout)
    assert pickle.loads(pickle.dumps(task.pickle_safe_dict()))["name"] == "sample:java"  # noqa: S301


@pytest.mark.parametrize(("args", "named"), [(None, False), ([], True), (["x"], True)])
def test_on_demand_task_knows_whether_it_was_named(
    layout: Layout, args: list[str] | None, named: bool
) -> None:
    requests = []

    def make(inputs: Inputs) -> Sample:
        requests.append(inputs.request.named)
        return Sample()

    option = Option("day", "day", "x")
    task = as_task(step(make, options=(option,), on_demand=True), layout)
    task.init_options(args)
    task.init_options()  # doit does so again before it runs
    assert isinstance(task, OnDemandTask)
    assert task.named is named
    function, (where, what) = task._actions[0]
    assert set(function(where, what, task)) == {"record"}
    assert requests == [named]


@pytest.mark.parametrize("args", [None, [], ["x"]])
@pytest.mark.parametrize("holds", [True, False])
def test_check_of_a_named_task(layout: Layout, args: list[str] | None, holds: bool) -> None:
    check = WhenNamed(lambda: holds, RollbackEnds)
    task = as_task(step(when_named=check), layout)
    assert (task.name, task.subtask_of) == ("sample:java", "sample")
    task.init_options(args)
    task.init_options()
    assert isinstance(task, RequestedTask) and not isinstance(task, OnDemandTask)
    assert check(task, {}) is (args is None or holds)
    assert check.cause({}) == RollbackEnds()


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
def test_words_like_a_variable_reach_a_command(
    argv: list[str], words: list[str], typed: list[str]
) -> None:
    assert as_typed("enter", words, argv) == typed


@pytest.mark.parametrize(("args", "value"), [(None, None), ([], False), (["--keep"], True)])
def test_flag_of_a_regular_task(layout: Layout, args: list[str] | None, value: bool | None) -> None:
    task = as_task(step(options=(Option("keep", "keep", "x", flag=True),)), layout)
    task.init_options(args)
    task.init_options()
    assert isinstance(task, RequestedTask) and not isinstance(task, OnDemandTask)
    assert task.request().options["keep"] is bool(value)
