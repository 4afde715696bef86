"""The output of a run."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doit.exceptions import BaseFail, TaskError, TaskFailed, UnmetDependency
from doit.task import Task

from tasks import journal
from tasks.engine.reporter import Reporter
from tasks.engine.step import Running, Step
from tasks.layout import Layout
from tasks.records import Kind, LockRecord
from tests.kit.fake_terminal import FakeTerminal


def work() -> None:
    """The action of a task."""


def task(name: str, *, actions: bool = True, meta: Any = None) -> Task:
    new_task = Task(name, [work] if actions else [], doc=f"make {name}", meta=meta)
    new_task.has_subtask = not actions
    return new_task


class Run:
    """A reporter, with a clock of its own, and what it has printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(sys, "argv", ["doit", "x y"])
        self.out = io.StringIO()
        self.reporter = Reporter(self.out, {"show_out": False, "failure_verbosity": 0})

    def add(self, name: str, seconds: float = 0, *, fail: BaseFail | None = None) -> None:
        each = task(name)
        self.reporter.execute_task(each)
        self.now += seconds
        if fail:
            self.reporter.add_failure(each, fail)
        else:
            self.reporter.add_success(each)

    def end(self) -> list[str]:
        self.reporter.complete_run()
        return self.out.getvalue().splitlines()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "duration"),
    [(0, "0.0 s"), (1.26, "1.3 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (3725, "62 min 5 s")],
)
def test_summary_counts_tasks_and_time(run: Run, seconds: float, duration: str) -> None:
    run.add("chroot:java", seconds)
    run.reporter.skip_uptodate(task("tree"))
    assert run.end() == [
        "chroot:java: make chroot:java",
        f"  done in {duration}",
        f"1 done, 1 up to date, {duration}",
    ]


def test_summary_of_a_run_with_nothing_to_do(run: Run) -> None:
    for each in ("tree", "seed:x"):
        run.reporter.skip_uptodate(task(each))
    run.reporter.skip_uptodate(task("seed", actions=False))  # a group does not count
    assert run.end() == ["nothing to do: all 2 tasks are up to date"]


def test_run_without_tasks_prints_nothing(run: Run) -> None:
    assert run.end() == []


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (TaskFailed("bad\n  next: mend it"), ["x: FAILED: bad", "  next: mend it"]),
        (TaskError("oops", ValueError("inner")), ["x: BUG: oops", "ValueError: inner"]),
    ],
    ids=["known", "bug"],
)
def test_failure_is_printed_and_counted(run: Run, fail: BaseFail, expected: list[str]) -> None:
    run.add("tree", 2)
    run.add("x", 3, fail=fail)
    lines = run.end()
    assert lines[2] == "x: make x"
    assert [line for line in lines if line in expected] == expected
    assert lines[-1] == (
        "failed: x after 5.0 s (1 done, 0 up to date); the same command continues: doit 'x y'"
    )


def test_interrupted_run_is_neither_done_nor_failed(run: Run) -> None:
    """A run that is ended from outside has neither succeeded nor failed."""
    run.add("tree", 2)
    run.reporter.execute_task(task("binpkgs:java"))
    run.now += 60
    assert run.end()[-1] == (
        "interrupted: binpkgs:java after 1 min 2 s (1 done, 0 up to date); "
        "the same command continues: doit 'x y'"
    )


def test_group_is_not_counted(run: Run) -> None:
    group = task("seed", actions=False)
    run.reporter.execute_task(group)
    run.reporter.add_success(group)
    assert run.end() == []


def test_errors_of_doit_itself_are_printed(run: Run) -> None:
    run.reporter.runtime_error("something about tasks")
    assert run.end() == ["something about tasks"]


def test_output_is_plain_lines(run: Run) -> None:
    run.add("tree", 1)
    run.add("x", fail=TaskFailed("ü"))
    text = "\n".join(run.end())
    assert all(c.isprintable() or c == "\n" for c in text)


def test_task_left_out_is_not_a_failure(run: Run) -> None:
    run.add("tree", 2, fail=TaskFailed("bad"))
    run.reporter.add_failure(task("x"), UnmetDependency("tree"))
    lines = run.end()
    assert lines[2] == "x: not run, because tree failed"
    assert lines[3] == "  not run: x"
    assert lines[4].startswith("failed: tree after 2.0 s")


def task_with_progress(layout: Layout, name: str, parts: Sequence[str] = ()) -> Task:
    def progress(_log: Path) -> Sequence[str]:
        return [*parts, "3 of 10 dev-libs/a-1\x1b[0m"]

    kind, _, chroot = name.partition(":")
    step = Step(Kind(kind, LockRecord)(chroot), "", lambda _: LockRecord(), progress=progress)
    return task(name, meta={"step": Running(layout, step)})


def test_long_task_prints_its_lines_every_five_minutes(run: Run, layout: Layout) -> None:
    run.reporter.execute_task(task_with_progress(layout, "binpkgs:x", ["1 a/b", "2 c/d"]))
    run.reporter.show_progress(run.now + 299)
    run.reporter.show_progress(run.now + 301)
    lines = run.out.getvalue().splitlines()
    assert lines[1:] == [
        "  still running: binpkgs:x 5 min 1 s, 3 of 10 dev-libs/a-1?[0m",
        "    1 a/b",
        "    2 c/d",
    ]
    run.reporter.ended.set()


@pytest.fixture
def terminal(run: Run, layout: Layout) -> FakeTerminal:
    """A terminal on which two tasks run; one took ten minutes last time."""
    run.reporter.outstream = terminal = FakeTerminal(200)
    before = replace(layout, run="20260311T101112Z-4999999")
    journal.start(before, "binpkgs:x")
    journal.end(before, "binpkgs:x", "done", 600)
    run.reporter.execute_task(task_with_progress(layout, "binpkgs:x", ["1 a/b", "2 c/d"]))
    run.reporter.execute_task(task("tree"))
    run.reporter.ended.set()
    return terminal


WHOLE = "  binpkgs:x 1 min 5 s (last time 10 min 0 s), 3 of 10 dev-libs/a-1?[0m"


def test_terminal_has_live_lines_until_the_end(
    run: Run, terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda **_: os.terminal_size((200, 24)))
    run.reporter.show_progress(run.now + 65)
    say = ["binpkgs:x: make binpkgs:x (last time 10 min 0 s)", "tree: make tree"]
    assert terminal.lines == [*say, "  1 a/b", "  2 c/d", f"{WHOLE} | tree 1 min 5 s"]
    run.reporter.add_success(task("tree"))
    assert terminal.lines == [*say, "  tree done in 0.0 s", ""]
    run.reporter.show_progress(run.now + 65)
    assert terminal.lines[2:] == ["  tree done in 0.0 s", "  1 a/b", "  2 c/d", WHOLE]
    run.reporter.add_failure(task("binpkgs:x"), TaskFailed("bad"))
    run.reporter.show_progress(run.now + 66)
    run.reporter.complete_run()
    assert [line for line in terminal.lines if "a/b" in line or WHOLE in line] == []
    assert terminal.lines[-2].endswith("the same command continues: doit 'x y'")


def test_terminal_has_one_live_line_beside_worker_processes(
    run: Run, terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing, "active_children", lambda: ["a worker"])
    monkeypatch.setattr(shutil, "get_terminal_size", lambda **_: os.terminal_size((200, 24)))
    run.reporter.show_progress(run.now + 65)
    assert terminal.lines[2:] == [f"{WHOLE} | tree 1 min 5 s"]
    run.reporter.complete_run()
