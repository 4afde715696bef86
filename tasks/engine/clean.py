"""`doit clean TASK ...`: delete artifacts and their records, so that the next run makes them again.

It replaces doit's own command, which would clean all default tasks and their dependencies.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from doit.cmd_clean import Clean as DoitClean
from doit.exceptions import InvalidCommand

from tasks import records
from tasks.engine.on_demand import OnDemandTask
from tasks.engine.spelling import Spelling
from tasks.engine.step import Running, Step, step_of
from tasks.errors import describe, failure
from tasks.layout import Layout
from tasks.system.files import all_locked, empty_trash, move_to_trash
from tasks.system.terminal import say, write


class Clean(Spelling, DoitClean):  # type: ignore[misc]
    """doit's `clean`, for named artifacts only."""

    name = "clean"
    doc_purpose = "delete artifacts and their records, so that the next run makes them again"
    doc_usage = "TASK ..."
    doc_description = (
        "Cleans only the tasks that you name (for a group, all of them), and only while no task of "
        "the site runs. Keeps frozen days, the lock and published generations. See also: doit gc."
    )
    cmd_options = tuple(o for o in DoitClean.cmd_options if o["name"] in ("dryrun", "cleanforget"))

    def _execute(self, dryrun: bool, cleanforget: bool, pos_args: list[str]) -> int:
        if not pos_args:
            raise InvalidCommand(
                "nothing was deleted; name the tasks to clean: doit clean TASK ... "
                "(to delete what is no longer needed: doit gc)"
            )
        self.failed = False
        super()._execute(dryrun, False, False, cleanforget, pos_args)
        return 1 if self.failed else 0

    def clean_tasks(self, tasks: list[Any], dryrun: bool, cleanforget: bool) -> None:
        """Clean each task that has an artifact; none of them if one cannot be cleaned."""
        selection: list[Running] = []
        for task in {task.name: task for task in tasks}.values():
            if (running := _cleanable(task)) is not None:
                selection.append(running)
            elif not task.has_subtask:
                write(self.outstream, f"{task.name}: doit clean never deletes its results\n")
        if selection:
            layout, steps = selection[0].layout, [running.step for running in selection]
            error = failure(lambda: clean(layout, steps, dry=dryrun), "clean")
            if error is not None:
                self.failed = True
                write(self.outstream, f"clean: FAILED: {describe(error)}\n")
            elif cleanforget and not dryrun:
                for step in steps:
                    self.dep_manager.remove(step.task)
        self.dep_manager.close()


def _cleanable(task: Any) -> Running | None:
    """The step of a task, if its artifact can be made again; else None."""
    return None if isinstance(task, OnDemandTask) else step_of(task)


def clean(layout: Layout, steps: list[Step[Any]], *, dry: bool) -> None:
    """Delete what steps own, and their records; with `dry` only print it.

    Raises Busy while any task of the site runs: a build has the layers below it mounted.
    """
    paths_by_task = {step.task: _own_paths(layout, step) for step in steps}
    if not dry:
        with all_locked(layout.locks):
            for paths in paths_by_task.values():
                for path in paths:
                    move_to_trash(path, layout.trash)
    for task, paths in paths_by_task.items():
        for path in paths:
            say(f"{task}: {'would delete' if dry else 'deleted'} {path.relative_to(layout.state)}")
        if not paths:
            say(f"{task}: nothing to delete")
    if not dry:
        empty_trash(layout.trash)


def _own_paths(layout: Layout, step: Step[Any]) -> list[Path]:
    """The paths to delete: the record first, then the results that only this task has."""
    record = layout.record(step.task)
    paths = [record, records.earlier(layout, step.task), *step.remains]
    # a damaged record does not list its results; `doit gc` finds them
    with contextlib.suppress(FileNotFoundError, ValueError):
        paths += step.owned_in(record.read_bytes())
    return [path for path in paths if os.path.lexists(path) and _inside(layout, path)]


def _inside(layout: Layout, path: Path) -> bool:
    """True if a path from a record is below state/."""
    return path.is_relative_to(layout.state) and path != layout.state and ".." not in path.parts
