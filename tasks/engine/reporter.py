"""What a run looks like: one line per task that did something, a summary that says what to type.

Plain lines, no control characters: the same on a terminal, in cron's mail and in CI.
"""

from __future__ import annotations

import time
from typing import Any

from doit.exceptions import BaseFail, TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter

from tasks.engine.step import ATTENDED
from tasks.system.terminal import write


class Reporter(ConsoleReporter):  # type: ignore[misc]
    """doit's console reporter with times, one-line failures and a summary."""

    desc = "binmill's own: what ran, how long, what failed and what to type"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self.began: dict[str, float] = {}
        self.ran = self.fresh = 0
        self.failed: list[str] = []
        self.start = time.monotonic()

    def execute_task(self, task: Any) -> None:
        """Called when a task's actions begin."""
        if task.actions and task.meta != ATTENDED:
            self.began[task.name] = time.monotonic()
            self._line(f"{task.name}: {task.doc or ''}")

    def add_success(self, task: Any) -> None:
        """Called when a task ended well."""
        began = self.began.pop(task.name, None)
        if began is not None:
            self.ran += 1
            self._line(f"  done in {_span(time.monotonic() - began)}")

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """Called when a task failed, or could not begin because of another."""
        self.began.pop(task.name, None)
        if task.meta != ATTENDED:
            self.failed.append(task.name)
        if isinstance(fail, UnmetDependency):
            self._line(f"{task.name}: left out, since {fail.message} failed")
        elif isinstance(fail, TaskFailed):
            self._line(f"{task.name}: FAILED: {fail.message}")
        else:
            self._line(f"{task.name}: BUG: {fail.get_msg()}")

    def skip_uptodate(self, task: Any) -> None:
        """Called when a task need not run."""
        if task.actions:
            self.fresh += 1

    def complete_run(self) -> None:
        """Called at the end: the summary."""
        for message in self.runtime_errors:
            self._line(message)
        took = _span(time.monotonic() - self.start)
        if self.began:
            self._line(f"interrupted: {', '.join(self.began)} after {took} ({self.ran} done, "
                       f"{self.fresh} up to date); the same command continues")  # fmt: skip
        elif self.failed:
            self._line(f"failed: {', '.join(self.failed)} after {took} ({self.ran} done, "
                       f"{self.fresh} up to date); the same command continues")  # fmt: skip
        elif self.ran:
            self._line(f"{self.ran} done, {self.fresh} up to date, {took}")
        elif self.fresh:
            self._line(f"nothing to do: all {self.fresh} tasks are up to date")

    def _line(self, text: str) -> None:
        write(self.outstream, text.rstrip() + "\n")


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
