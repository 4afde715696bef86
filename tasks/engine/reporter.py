"""The output of a run: one line per task that did something, and a summary with the next command.

In mail of cron and in CI these are plain lines, with one more every few minutes while something
long runs. On a terminal there are live lines below them: one for each thing that a task works on,
and one with the running tasks, for how long, how long they took last time, and their progress.
"""

from __future__ import annotations

import multiprocessing
import shlex
import sys
import threading
import time
from typing import Any

from doit.exceptions import BaseFail, TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter

from tasks import journal
from tasks.engine.step import Running, step_of
from tasks.system.terminal import live, remove_live_lines, write
from tasks.text import one_line, span

_TICK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 300.0
_LONG_SECONDS = 5.0  # shorter tasks need no estimate


class Reporter(ConsoleReporter):  # type: ignore[misc]
    """doit's console reporter with times, one-line failures and a summary."""

    desc = "binmill's own: times, failures in one line and the next command"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self.running: dict[str, float] = {}
        self.steps: dict[str, Running] = {}
        self.last_seconds: dict[str, float] | None = None
        self.done = self.up_to_date = 0
        self.failed: list[str] = []
        self.not_run: list[str] = []
        self.start = self.last_line = time.monotonic()
        self.ended = threading.Event()
        self.ticker: threading.Thread | None = None

    def execute_task(self, task: Any) -> None:
        """Called when a task's actions begin."""
        if task.actions:
            self.running[task.name] = time.monotonic()
            step = step_of(task)
            if step is not None:
                self.steps[task.name] = step
                if self.last_seconds is None:
                    self.last_seconds = journal.usual_seconds(step.layout)
            self._line(f"{task.name}: {task.doc or ''}{self._last_time(task.name)}")
            if self.ticker is None:  # the processes of `doit -n` have been forked by now
                self.ticker = threading.Thread(target=self._tick, daemon=True)
                self.ticker.start()

    def add_success(self, task: Any) -> None:
        """Called when a task ended well."""
        start = self.running.pop(task.name, None)
        if start is not None:
            self.done += 1
            which = f"{task.name} " if self.running else ""  # other tasks run beside it
            self._line(f"  {which}done in {span(time.monotonic() - start)}")

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """Called when a task failed, or was not run because another failed."""
        self.running.pop(task.name, None)
        if isinstance(fail, UnmetDependency):
            self.not_run.append(task.name)
            self._line(f"{task.name}: not run, because {fail.message} failed")
            return
        self.failed.append(task.name)
        if isinstance(fail, TaskFailed):
            self._line(f"{task.name}: FAILED: {fail.message}")
        else:
            self._line(f"{task.name}: BUG: {fail.get_msg()}")

    def skip_uptodate(self, task: Any) -> None:
        """Called when a task need not run."""
        if task.actions:
            self.up_to_date += 1

    def complete_run(self) -> None:
        """Called at the end; prints the summary."""
        self.ended.set()
        if self.ticker is not None:
            self.ticker.join()  # nothing is live after this
        for message in self.runtime_errors:
            self._line(message)
        took = span(time.monotonic() - self.start)
        counts = f"({self.done} done, {self.up_to_date} up to date)"
        if (self.done or self.failed or self.running) and (logs := self._logs()):
            self._line(f"  logs: {logs}")
        if self.not_run:
            self._line(f"  not run: {', '.join(self.not_run)}")
        if self.running:
            self._line(f"interrupted: {', '.join(self.running)} after {took} {counts}; {_again()}")
        elif self.failed or self.not_run:
            self._line(f"failed: {', '.join(self.failed)} after {took} {counts}; {_again()}")
        elif self.done:
            self._line(f"{self.done} done, {self.up_to_date} up to date, {took}")
        elif self.up_to_date:
            self._line(f"nothing to do: all {self.up_to_date} tasks are up to date")

    def show_progress(self, now: float) -> None:
        """Show the running tasks, where that is due; `now` by the monotonic clock."""
        terminal = self.outstream.isatty()
        if not terminal and now - self.last_line < _HEARTBEAT_SECONDS:
            return
        tasks = [self._progress(name, start, now) for name, start in list(self.running.items())]
        if terminal:
            lines = [part for _, parts in tasks for part in parts]
            if multiprocessing.active_children():
                lines = []  # a worker of `doit -n` that prints a line clears one live line, no more
            if tasks:
                lines.append(" | ".join(task for task, _ in tasks))
                live(self.outstream, *(f"  {line}" for line in lines))
            return
        for task, parts in tasks:
            self._line(f"  still running: {task}")
            for part in parts:
                self._line(f"    {part}")

    def _tick(self) -> None:
        while not self.ended.wait(_TICK_SECONDS):
            self.show_progress(time.monotonic())

    def _progress(self, name: str, start: float, now: float) -> tuple[str, list[str]]:
        """A line about a running task, and a line for each thing that it works on."""
        step = self.steps.get(name)
        lines = step.progress() if step else ()
        *parts, whole = [one_line(line) for line in lines] or [""]
        text = f"{name} {span(now - start)}{self._last_time(name)}"
        return f"{text}, {whole}" if whole else text, parts

    def _last_time(self, name: str) -> str:
        seconds = (self.last_seconds or {}).get(name, 0.0)
        return f" (last time {span(seconds)})" if seconds >= _LONG_SECONDS else ""

    def _logs(self) -> str:
        step = next(iter(self.steps.values()), None)
        return str(step.layout.run_logs) if step and step.layout.run_logs.is_dir() else ""

    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        remove_live_lines()  # the next tick shows what still runs
        write(self.outstream, text.rstrip() + "\n")


def _again() -> str:
    return f"the same command continues: doit {shlex.join(sys.argv[1:])}".rstrip()
