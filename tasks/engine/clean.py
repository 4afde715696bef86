"""`doit clean TASK ...`: what was made and its record are put away, so that it is made again.

It takes the place of doit's own, which would take all default tasks with all that they need.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from doit.cmd_clean import Clean as DoitClean
from doit.exceptions import InvalidCommand

from tasks.engine.on_demand import Asked
from tasks.engine.spelling import Spelling
from tasks.engine.step import Step, carry_out, told
from tasks.layout import Layout
from tasks.system.files import all_locked, empty_trash, put_away
from tasks.system.terminal import say, write


class Clean(Spelling, DoitClean):  # type: ignore[misc]
    """doit's `clean`, of artifacts that are named."""

    name = "clean"
    doc_purpose = "put artifacts and their records away, so that they are made again"
    doc_usage = "TASK ..."
    doc_description = (
        "Only what is named (a group: all of it), and only while nothing of the site runs. Frozen "
        "days, the lock and published generations stay. For what nothing needs: doit gc."
    )
    cmd_options = tuple(o for o in DoitClean.cmd_options if o["name"] in ("dryrun", "cleanforget"))

    def _execute(self, dryrun: bool, cleanforget: bool, pos_args: list[str]) -> int:
        if not pos_args:
            raise InvalidCommand(
                "name what is to be made again: doit clean TASK ...; nothing was deleted "
                "(what nothing needs any more: doit gc)"
            )
        self.failed = False
        super()._execute(dryrun, False, False, cleanforget, pos_args)
        return 1 if self.failed else 0

    def clean_tasks(self, tasks: list[Any], dryrun: bool, cleanforget: bool) -> None:
        """Clean each of the tasks that leaves something; all of them or, on an error, none more."""
        found: list[tuple[Layout, Step]] = []
        for task in {task.name: task for task in tasks}.values():
            if (made := _made(task)) is not None:
                found.append(made)
            elif not task.has_subtask:
                write(self.outstream, f"{task.name}: nothing of it is ever put away\n")
        every = [task.name for task in self.task_list if _made(task) is not None]
        if found:
            layout, steps = found[0][0], [step for _, step in found]
            fail = told(lambda: clean(layout, steps, every, dryrun), "clean")
            if fail is not None:
                self.failed = True
                write(self.outstream, f"clean: FAILED: {fail.message}\n")
            elif cleanforget and not dryrun:
                for step in steps:
                    self.dep_manager.remove(step.task)
        self.dep_manager.close()


def _made(task: Any) -> tuple[Layout, Step] | None:
    """The step that a task carries out, where it leaves a result that can be made again."""
    for action in () if isinstance(task, Asked) else task.actions:
        if getattr(action, "py_callable", None) is carry_out:
            layout, step = action.args
            return layout, step
    return None


def clean(layout: Layout, steps: list[Step], every: list[str], dry: bool) -> None:
    """Put away what steps own, and their records; with `dry` only say what.

    Raises Busy while any task out of `every` runs: a build has the layers below it mounted.
    """
    gone = {step.task: _owned(layout, step) for step in steps}
    if not dry:
        entered = [f"enter:{task.partition(':')[2]}" for task in every]
        locks = {layout.busy(task) for task in (*every, *entered) if not task.endswith(":")}
        with all_locked(locks, layout.locks):
            for paths in gone.values():
                for path in paths:
                    put_away(path, layout.trash)
    for task, paths in gone.items():
        for path in paths:
            say(f"{task}: {'would delete' if dry else 'deleted'} {path.relative_to(layout.state)}")
        if not paths:
            say(f"{task}: there is nothing")
    if not dry:
        empty_trash(layout.trash)


def _owned(layout: Layout, step: Step) -> list[Path]:
    """The record first, since what it names is no longer whole from then on; then all else."""
    record = layout.record(step.task)
    found = [record, record.with_suffix(".before")]
    # what a damaged record names, nobody knows; `doit gc` finds it
    with contextlib.suppress(FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        found += (step.owned or step.results)(json.loads(record.read_bytes()))
    return [path for path in found if os.path.lexists(path) and _inside(layout, path)]


def _inside(layout: Layout, path: Path) -> bool:
    """Whether a path that a record gave lies below state/."""
    return path.is_relative_to(layout.state) and path != layout.state and ".." not in path.parts
