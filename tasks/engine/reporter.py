"""What a run looks like: one line per task that did something, a summary that says what to type.

In cron's mail and in CI these are plain lines, and one more every few minutes while something
long goes on. On a terminal there is a live line below them: what runs, for how long, how long it
took last time, and how far it is.
"""

from __future__ import annotations

import shlex
import sys
import threading
import time
from typing import Any

from doit.exceptions import BaseFail, TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter

from tasks import journal
from tasks.engine.step import Running, step_of
from tasks.system.terminal import live, write
from tasks.text import one_line, span

_TICK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 300.0
_WORTH_TELLING = 5.0  # seconds; below, nobody asks how long it will take


class Reporter(ConsoleReporter):  # type: ignore[misc]
    """doit's console reporter with times, one-line failures and a summary."""

    desc = "binmill's own: what ran, how long, what failed and what to type"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        super().__init__(outstream, options)
        self.began: dict[str, float] = {}
        self.watched: dict[str, Running] = {}
        self.usual: dict[str, float] | None = None
        self.ran = self.fresh = 0
        self.failed: list[str] = []
        self.left_out: list[str] = []
        self.start = self.told = time.monotonic()
        self.over = threading.Event()
        self.ticker: threading.Thread | None = None

    def execute_task(self, task: Any) -> None:
        """Called when a task's actions begin."""
        if task.actions:
            self.began[task.name] = time.monotonic()
            watch = step_of(task)
            if watch is not None:
                self.watched[task.name] = watch
                if self.usual is None:
                    self.usual = journal.expected(watch.layout)
            self._line(f"{task.name}: {task.doc or ''}{self._usually(task.name)}")
            if self.ticker is None:  # the processes of `doit -n` have been forked by now
                self.ticker = threading.Thread(target=self._tick, daemon=True)
                self.ticker.start()

    def add_success(self, task: Any) -> None:
        """Called when a task ended well."""
        began = self.began.pop(task.name, None)
        if began is not None:
            self.ran += 1
            which = f"{task.name} " if self.began else ""  # others run beside it
            self._line(f"  {which}done in {span(time.monotonic() - began)}")

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """Called when a task failed, or could not begin because of another."""
        self.began.pop(task.name, None)
        if isinstance(fail, UnmetDependency):
            self.left_out.append(task.name)
            self._line(f"{task.name}: left out, since {fail.message} failed")
            return
        self.failed.append(task.name)
        if isinstance(fail, TaskFailed):
            self._line(f"{task.name}: FAILED: {fail.message}")
        else:
            self._line(f"{task.name}: BUG: {fail.get_msg()}")

    def skip_uptodate(self, task: Any) -> None:
        """Called when a task need not run."""
        if task.actions:
            self.fresh += 1

    def complete_run(self) -> None:
        """Called at the end: the summary."""
        self.over.set()
        for message in self.runtime_errors:
            self._line(message)
        took = span(time.monotonic() - self.start)
        counted = f"({self.ran} done, {self.fresh} up to date)"
        if (self.ran or self.failed or self.began) and (logs := self._logs()):
            self._line(f"  logs: {logs}")
        if self.left_out:
            self._line(f"  left out: {', '.join(self.left_out)}")
        if self.began:
            self._line(f"interrupted: {', '.join(self.began)} after {took} {counted}; {_again()}")
        elif self.failed or self.left_out:
            self._line(f"failed: {', '.join(self.failed)} after {took} {counted}; {_again()}")
        elif self.ran:
            self._line(f"{self.ran} done, {self.fresh} up to date, {took}")
        elif self.fresh:
            self._line(f"nothing to do: all {self.fresh} tasks are up to date")

    def look(self, now: float) -> None:
        """Say how far it is, where that is due; `now` by the monotonic clock."""
        running = [self._far(name, began, now) for name, began in list(self.began.items())]
        if not running:
            return
        if self.outstream.isatty():
            live(self.outstream, "  " + " | ".join(running))
        elif now - self.told >= _HEARTBEAT_SECONDS:
            for line in running:
                self._line(f"  still at it: {line}")

    def _tick(self) -> None:
        while not self.over.wait(_TICK_SECONDS):
            self.look(time.monotonic())

    def _far(self, name: str, began: float, now: float) -> str:
        watch = self.watched.get(name)
        far = one_line(watch.progress()) if watch else ""
        return f"{name} {span(now - began)}{self._usually(name)}" + (f", {far}" if far else "")

    def _usually(self, name: str) -> str:
        seconds = (self.usual or {}).get(name, 0.0)
        return f" (last time {span(seconds)})" if seconds >= _WORTH_TELLING else ""

    def _logs(self) -> str:
        watch = next(iter(self.watched.values()), None)
        return str(watch.layout.run_logs) if watch and watch.layout.run_logs.is_dir() else ""

    def _line(self, text: str) -> None:
        self.told = time.monotonic()
        write(self.outstream, text.rstrip() + "\n")


def _again() -> str:
    return f"the same command continues: doit {shlex.join(sys.argv[1:])}".rstrip()
