"""doit's own commands where they are not truthful: exit codes, and one line instead of a traceback.

They take the place of doit 0.37's through its entry point group `doit.COMMAND`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
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
from tasks.system.terminal import write

_LOOK_SECONDS = 1.0


class _Truthful:
    """What doit's runners get wrong with --continue.

    A task that is left out is no bug: the run ends with 1, as its cause does. And a failed
    `setup` task stops the one that it was to prepare.
    """

    final_result: int
    dep_manager: Any

    def select_task(self, node: Any, tasks: dict[str, Any]) -> bool:
        if node.run_status == "run" and node.bad_deps:  # its setup tasks have been tried
            names = " ".join(bad.task.name for bad in node.bad_deps)
            self._handle_task_error(node, UnmetDependency(names))
            return False
        return bool(super().select_task(node, tasks))  # type: ignore[misc]

    def process_task_result(self, node: Any, fail: BaseFail | None) -> None:
        try:
            super().process_task_result(node, fail)  # type: ignore[misc]
        except sqlite3.Error as error:  # what was made is there, and is made again
            self._handle_task_error(
                node,
                TaskFailed(
                    f"{self.dep_manager.name} could not be written ({error})\n"
                    "  next: check the disk (df -h, df -i): is there no space left on device? "
                    "then run it again"
                ),
            )

    def _handle_task_error(self, node: Any, fail: BaseFail) -> None:
        before = self.final_result
        super()._handle_task_error(node, fail)  # type: ignore[misc]
        if isinstance(fail, UnmetDependency):
            self.final_result = max(before, FAILURE)


class _Runner(_Truthful, Runner):  # type: ignore[misc]
    """One task after the other."""


class _ParallelRunner(_Truthful, MRunner):  # type: ignore[misc]
    """`doit -n`: tasks in processes of their own, which end with the run that they belong to."""

    _run = os.getpid()

    def execute_task_subprocess(self, *queues: Any) -> None:
        end_with(self._run)
        super().execute_task_subprocess(*queues)

    def _run_start_processes(self, jobs: Any, results: Any) -> list[Any]:
        workers: list[Any] = super()._run_start_processes(jobs, results)
        results.get = partial(_result, results.get, workers)  # doit's own waits for ever
        return workers


def _result(get: Callable[..., Any], workers: list[Any]) -> Any:
    """The next result; ends the run when the worker that was to give one was killed."""
    while True:
        with contextlib.suppress(queue.Empty):
            return get(timeout=_LOOK_SECONDS)
        killed = [-code for worker in workers if (code := worker.exitcode) and code < 0]
        if killed:
            what = f"a process of this run was killed (signal {killed[0]}); out of memory?"
            write(sys.stderr, f"{what}\n  next: the same command again, or without -n\n")
            raise SystemExit(FAILURE)


class Run(Spelling, DoitRun):  # type: ignore[misc]
    """doit's `run` with runners whose exit code is the truth."""

    name = "run"

    def execute(self, params: Any, args: list[str]) -> int:
        # doit looks its runners up in its module, and has no other way to name them
        cmd_run.Runner, cmd_run.MRunner = _Runner, _ParallelRunner
        result: int = super().execute(params, args)
        return result

    def known(self) -> list[str]:
        """`run` is what doit makes of a first word that is no command of its own."""
        return [*super().known(), *commands()]


class List(Spelling, DoitList):  # type: ignore[misc]
    """doit's `list`, which says what is misspelt."""

    name = "list"


class Forget(Spelling, DoitForget):  # type: ignore[misc]
    """doit's `forget`; what cannot be written is not said to be forgotten."""

    name = "forget"

    def _execute(self, forget_sub: bool, forget_disable_default: bool, forget_all: bool) -> None:
        if not getattr(self.dep_manager.backend, "writable", True):
            raise InvalidCommand(
                f"{self.dep_manager.name} cannot be written, nothing was forgotten; "
                "run it as the user whose state/ it is"
            )
        super()._execute(forget_sub, forget_disable_default, forget_all)


class DumpDB(DoitCmdBase):  # type: ignore[misc]
    """doit's `dumpdb` for this project's database."""

    name = "dumpdb"
    doc_purpose = "show what doit remembers of each task, as JSON"
    doc_usage = ""
    doc_description = "For the curious. Changes nothing."
    cmd_options = ()
    execute_tasks = False

    def _execute(self) -> int:
        found = {task.name: self.dep_manager.get_values(task.name) for task in self.task_list}
        self.dep_manager.close()
        kept = {name: values for name, values in sorted(found.items()) if values}
        write(self.outstream, json.dumps(kept, indent=1, sort_keys=True) + "\n")
        return 0
