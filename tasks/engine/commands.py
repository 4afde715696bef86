"""Corrections of doit's own commands: right exit codes, and one line instead of a traceback.

They replace those of doit 0.37 by its entry point group `doit.COMMAND`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sqlite3
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from doit import cmd_run
from doit.cmd_base import DoitCmdBase
from doit.cmd_forget import Forget as DoitForget
from doit.cmd_list import List as DoitList
from doit.cmd_run import Run as DoitRun
from doit.exceptions import BaseFail, InvalidCommand, TaskFailed, UnmetDependency
from doit.runner import FAILURE, MRunner, Runner

from tasks.engine.signals import end_with
from tasks.engine.spelling import Spelling, commands
from tasks.errors import BinmillError, DiskFull, describe
from tasks.system.disk_space import shortage
from tasks.system.terminal import write

_LOOK_SECONDS = 1.0
_BY_SIGNAL = 128  # an exit code above it: ended by a signal


class _Corrected:
    """Corrections of doit's runners for --continue.

    A task that is not run because another failed is no bug: the run ends with 1. And a failed
    `setup` task stops the task that it was to prepare.
    """

    final_result: int
    dep_manager: Any

    def select_task(self, node: Any, tasks: dict[str, Any]) -> bool:
        if node.run_status == "run" and node.bad_deps:  # its setup tasks have run
            names = " ".join(bad.task.name for bad in node.bad_deps)
            self._handle_task_error(node, UnmetDependency(names))
            return False
        return bool(super().select_task(node, tasks))  # type: ignore[misc]

    def process_task_result(self, node: Any, fail: BaseFail | None) -> None:
        try:
            super().process_task_result(node, fail)  # type: ignore[misc]
        except sqlite3.Error as error:  # the results are there; the next run repeats the task
            self._handle_task_error(
                node,
                TaskFailed(describe(_not_written(self.dep_manager.name, error))),
            )

    def _handle_task_error(self, node: Any, fail: BaseFail) -> None:
        before = self.final_result
        super()._handle_task_error(node, fail)  # type: ignore[misc]
        if isinstance(fail, UnmetDependency):
            self.final_result = max(before, FAILURE)


def _not_written(database: str, error: sqlite3.Error) -> BinmillError:
    if full := shortage(Path(database).parent):
        return DiskFull("disk-full", cause=f"{database}: {error}", reason=full.message)
    return BinmillError("database-not-written", path=database, cause=str(error))


class _Runner(_Corrected, Runner):  # type: ignore[misc]
    """One task after the other."""


class _ParallelRunner(_Corrected, MRunner):  # type: ignore[misc]
    """`doit -n`: tasks in processes of their own, which end with their run."""

    _run = os.getpid()

    def execute_task_subprocess(self, *queues: Any) -> None:
        end_with(self._run)
        super().execute_task_subprocess(*queues)

    def _run_start_processes(self, jobs: Any, results: Any) -> list[Any]:
        workers: list[Any] = super()._run_start_processes(jobs, results)
        results.get = partial(_result, results.get, workers)  # doit's own waits forever
        return workers


def _result(get: Callable[..., Any], workers: list[Any]) -> Any:
    """Return the next result; ends the run when a worker was killed or terminated."""
    while True:
        killed = []
        with contextlib.suppress(queue.Empty):
            result = get(timeout=_LOOK_SECONDS)
            signalled = _signal_of(result)
            if signalled is None:
                return result
            killed.append(signalled)
        killed += [-code for worker in workers if (code := worker.exitcode) and code < 0]
        if killed:
            write(sys.stderr, f"{BinmillError('worker-killed', signal=killed[0])}\n")
            raise SystemExit(FAILURE)


def _signal_of(result: Mapping[str, Any]) -> int | None:
    """The signal that ended the worker of a result, by its exit code (see engine.signals)."""
    text = str(result.get("exception", ""))
    if result.get("exit") is not SystemExit or not text.isdecimal() or int(text) <= _BY_SIGNAL:
        return None
    return int(text) - _BY_SIGNAL


class Run(Spelling, DoitRun):  # type: ignore[misc]
    """doit's `run` with corrected runners."""

    name = "run"

    def execute(self, params: Any, args: list[str]) -> int:
        # doit takes its runners from its module; there is no other way to replace them
        cmd_run.Runner, cmd_run.MRunner = _Runner, _ParallelRunner
        result: int = super().execute(params, args)
        return result

    def candidates(self) -> list[str]:
        """Tasks and commands: doit takes a first word that is no command for a task of `run`."""
        return [*super().candidates(), *commands()]


class List(Spelling, DoitList):  # type: ignore[misc]
    """doit's `list`, which suggests the right spelling."""

    name = "list"


class Forget(Spelling, DoitForget):  # type: ignore[misc]
    """doit's `forget`, which fails where it cannot write."""

    name = "forget"

    def _execute(self, forget_sub: bool, forget_disable_default: bool, forget_all: bool) -> None:
        if not getattr(self.dep_manager.backend, "writable", True):
            raise InvalidCommand(
                str(BinmillError("database-not-writable", path=self.dep_manager.name))
            )
        super()._execute(forget_sub, forget_disable_default, forget_all)


class DumpDB(DoitCmdBase):  # type: ignore[misc]
    """doit's `dumpdb` for this project's database."""

    name = "dumpdb"
    doc_purpose = "show the values that doit keeps of each task, as JSON"
    doc_usage = ""
    doc_description = "For debugging. Changes nothing."
    cmd_options = ()
    execute_tasks = False

    def _execute(self) -> int:
        every = {task.name: self.dep_manager.get_values(task.name) for task in self.task_list}
        self.dep_manager.close()
        values = {name: each for name, each in every.items() if each}
        write(self.outstream, json.dumps(values, indent=1, sort_keys=True) + "\n")
        return 0
