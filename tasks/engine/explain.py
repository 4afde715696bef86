"""Explanations: which tasks would run, and why each, as data. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.causes import (
    AlwaysRuns,
    Cause,
    FilesChanged,
    InputMissing,
    InputsDiffer,
    MayChange,
    NamedOnCommandLine,
    NeverMade,
    NotRemembered,
    Reason,
    RecordsChanged,
    ResultMissing,
)
from tasks.engine.on_demand import OnDemandTask
from tasks.engine.step import step_of


def explain(tasks: Mapping[str, Any], selected: Sequence[str], memory: Any) -> dict[str, Reason]:
    """The tasks that would run, in the order of the run, each with its reason.

    Of tasks that do not depend on each other, the first of `tasks` comes first. `memory` is doit's
    dependency manager.
    """
    # doit derives task_dep from a set of files, which has another order in each process
    place = {name: number for number, name in enumerate(tasks)}
    causes: dict[str, Cause] = {}
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        task = tasks[name]
        for before in sorted(task.task_dep, key=place.__getitem__):
            visit(before)
        cause = _cause(task, tasks, memory, causes)
        if cause is not None:
            for setup in task.setup_tasks:  # these run only because this one does
                visit(setup)
            causes[name] = cause

    for name in selected:
        visit(name)
    return {name: _reason(name, causes) for name in causes}


def _reason(task: str, causes: Mapping[str, Cause]) -> Reason:
    """The reason of one task: the chain of tasks down to the first that certainly runs."""
    chain = [task]
    while isinstance(cause := causes[chain[-1]], MayChange):
        chain.append(cause.task)
    return Reason(task, causes[task], causes[chain[-1]], tuple(chain))


def _cause(
    task: Any, tasks: Mapping[str, Any], memory: Any, causes: Mapping[str, Cause]
) -> Cause | None:
    if task.has_subtask or not task.actions:
        return None
    if isinstance(task, OnDemandTask) and task.named:
        return NamedOnCommandLine()
    changing = [  # in the order of the run
        name for name, cause in causes.items() if name in task.task_dep and not cause.same_result
    ]
    status = memory.get_status(task, tasks, get_log=True)
    if status.status == "up-to-date" and not changing:
        return None
    reasons = dict(status.reasons)
    # a record that the task reads for the first time counts as changed for doit
    dependencies = set(memory._get(task.name, "deps:") or ())
    reasons["changed_file_dep"] = [
        p for p in reasons.get("changed_file_dep", ()) if p in dependencies
    ]
    return next(_causes(task, tasks, reasons, changing, memory.get_values(task.name)))


def _causes(
    task: Any,
    tasks: Mapping[str, Any],
    reasons: Mapping[str, Any],
    changing: Sequence[str],
    values: Mapping[str, Any],
) -> Iterator[Cause]:
    """The causes of a task, the most telling first; doit's `reasons` are grouped by kind."""
    if not values and reasons.get("missing_target"):
        yield NeverMade()
    if not values and not isinstance(task, OnDemandTask) and task.targets:
        yield NotRemembered()
    for check, _, _ in reasons.get("uptodate_false", ()):
        yield check.cause(values) if hasattr(check, "cause") else AlwaysRuns()
    if paths := sorted(reasons.get("changed_file_dep", ())):
        makers = [name for path in paths if (name := _maker(path, tasks))]
        yield RecordsChanged(makers) if makers else _files_cause(task, paths)
    if reasons.get("missing_target"):
        yield ResultMissing()
    if changing:
        yield MayChange(changing[0])
    if missing := reasons.get("missing_file_dep"):
        yield InputMissing([Path(path).name for path in missing])
    yield InputsDiffer()


def _files_cause(task: Any, paths: Sequence[str]) -> Cause:
    running = step_of(task)
    explained = running.step.files_cause if running else None
    return (explained and explained()) or FilesChanged([Path(path).name for path in paths])


def _maker(path: str, tasks: Mapping[str, Any]) -> str:
    """The task whose record lies at a path; "" for a file that is no record."""
    if Path(path).parent.name != "records":
        return ""
    return next((task.name for task in tasks.values() if path in task.targets), "")
