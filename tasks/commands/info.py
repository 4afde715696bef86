"""info: describe one task: its record, inputs, results, last run, and why it would run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl
from doit.exceptions import InvalidCommand

from tasks import clock, journal, records, text
from tasks.causes import Reason
from tasks.engine.explain import explain
from tasks.engine.spelling import unknown_task
from tasks.engine.step import Running, step_of
from tasks.system.terminal import write

_LONGEST = 200  # characters of one field of a record
_FEW = 5  # entries of a list that are shown


class Info(DoitCmdBase):  # type: ignore[misc]
    """doit info TASK ..."""

    name = "info"
    doc_purpose = "describe a task: its record, inputs, results, last run, and why it would run"
    doc_usage = "TASK ..."
    doc_description = "Changes nothing; needs neither root nor network."
    cmd_options = ()
    execute_tasks = False

    def _execute(self, pos_args: list[str]) -> int:
        control = TaskControl(self.task_list)
        names = pos_args or [""]
        for name in names:
            if name not in control.tasks:
                raise InvalidCommand(
                    unknown_task(name, control.tasks) if name else "give the name of a task"
                )
        control.process(None)
        reasons = explain(control.tasks, names, self.dep_manager)
        self.dep_manager.close()
        for name in names:
            for line in describe_task(control.tasks[name], reasons):
                write(self.outstream, f"{line}\n")
        return 0


def describe_task(task: Any, reasons: Mapping[str, Reason]) -> Iterator[str]:
    """The lines about one task."""
    yield f"{task.name}: {task.doc or ''}"
    running = step_of(task)
    if running is None:
        for inner in task.task_dep:
            yield f"  has       {inner}"
        return
    yield from _record(running)
    for key in running.step.reads:
        yield f"  reads     {key.task}"
    for path in running.step.files:
        yield f"  reads     {path}"
    yield from _last_run(running)
    reason = reasons.get(task.name)
    yield f"  would run: {reason}" if reason else "  would not run: it is up to date"


def _record(running: Running) -> Iterator[str]:
    """The fields of its record, and the paths of its results."""
    layout, step = running.layout, running.step
    place = step.target or layout.record(step.task)
    if not place.exists():
        yield "  record    none"
        return
    yield f"  record    {place}"
    if step.target is not None:
        return
    try:
        raw = place.read_bytes()
        record, results = records.parse(step.key, raw), step.results_in(raw)
    except (OSError, ValueError) as error:
        yield f"            cannot be read: {text.one_line(str(error), _LONGEST)}"
        return
    for name, value in records.plain(record).items():
        display = (
            text.count(len(value), "entry") if isinstance(value, list) and len(value) > 5 else value
        )
        yield f"            {name} = {text.one_line(str(display), _LONGEST)}"
    for path in results:
        yield f"  made      {path}" + ("" if path.exists() else " (missing)")


def _last_run(running: Running) -> Iterator[str]:
    """The outcome and time of its last run, and the path of its log."""
    layout, name = running.layout, running.step.task
    for folder in journal.folders(layout):
        run = next((run for run in journal.task_runs(folder) if run.task == name), None)
        if run is None:
            continue
        outcome, when = "started", run.started.time
        if run.ended:
            outcome = f"{run.ended.outcome} after {text.span(run.ended.seconds)}"
            when = run.ended.time
        yield f"  last run  {outcome}, {text.ago(clock.now() - when)} ago"
        if run.ended and run.ended.message:
            yield f"            {text.one_line(run.ended.message, _LONGEST)}"
        log = folder / running.log.name
        if log.exists():
            yield f"  log       {log}"
        return
    yield "  last run  none"
