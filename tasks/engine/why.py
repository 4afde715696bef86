"""`doit why [TASK...]`: what would run, each with its first cause; the dry run.

Reads only: no root, no network, no change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl

from tasks.engine.on_demand import Asked
from tasks.engine.spelling import Spelling
from tasks.engine.step import Inputs
from tasks.system.terminal import write


class Why(Spelling, DoitCmdBase):  # type: ignore[misc]
    """doit's command `why`."""

    name = "why"
    doc_purpose = "say which tasks would run, and why each"
    doc_usage = "[TASK ...]"
    doc_description = "Prints each task that would run with its first cause. Changes nothing."
    cmd_options = ()
    execute_tasks = False

    def _execute(self) -> int:
        control = TaskControl(self.task_list)
        control.process(self.sel_tasks)
        causes = explain(control.tasks, control.selected_tasks, self.dep_manager)
        self.dep_manager.close()
        for task in causes:
            write(self.outstream, f"{task}: {first_cause(task, causes)}\n")
        if not causes:
            write(self.outstream, "nothing would run: everything is up to date\n")
        return 0


_MAYBE = "runs if "
_LEAVES = " leaves something new"


def first_cause(task: str, causes: dict[str, str]) -> str:
    """Why a task would run; of one that runs because of others: why the first of them would."""
    way = [task]
    while causes[way[-1]].startswith(_MAYBE):
        way.append(causes[way[-1]].removeprefix(_MAYBE).removesuffix(_LEAVES))
    cause = causes[way[-1]]
    if len(way) == 1:
        return cause
    return f"{cause} ({' -> '.join(reversed(way))}; {causes[task]})"


def explain(tasks: dict[str, Any], selected: list[str], memory: Any) -> dict[str, str]:
    """The tasks that would run, in the order of the run, each with its own cause in words."""
    causes: dict[str, str] = {}
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        task = tasks[name]
        for before in task.task_dep:
            visit(before)
        cause = _cause(task, tasks, memory, causes)
        if cause:
            for setup in task.setup_tasks:  # these run only because this one does
                visit(setup)
            causes[name] = cause

    for name in selected:
        visit(name)
    return causes


def _cause(task: Any, tasks: dict[str, Any], memory: Any, causes: dict[str, str]) -> str:
    if task.has_subtask or not task.actions:
        return ""
    if isinstance(task, Asked) and task.asked:
        return "you asked for it"
    stale = [name for name in causes if name in task.task_dep]  # in the order of the run
    found = memory.get_status(task, tasks, get_log=True)
    if found.status == "up-to-date" and not stale:
        return ""
    return next(_told(task, tasks, found.reasons, stale, memory.get_values(task.name)))


def _told(
    task: Any,
    tasks: dict[str, Any],
    reasons: dict[str, Any],
    stale: list[str],
    remembered: dict[str, Any],
) -> Iterator[str]:
    """Causes, the most telling first."""
    if not remembered and reasons.get("missing_target"):
        yield "it has not been made yet"
    if not remembered and not isinstance(task, Asked) and task.targets:
        yield "its last run failed, or was forgotten"
    if reasons.get("uptodate_false"):
        yield "; ".join(_worded(check, remembered) for check, _, _ in reasons["uptodate_false"])
    if reasons.get("changed_file_dep"):
        names = ", ".join(sorted(_shown(path, tasks) for path in reasons["changed_file_dep"]))
        yield f"changed: {names}"
    if reasons.get("missing_target"):
        yield f"missing: {', '.join(Path(p).name for p in reasons['missing_target'])}"
    if stale:
        yield f"{_MAYBE}{stale[0]}{_LEAVES}"
    if reasons.get("missing_file_dep"):
        yield f"needs {', '.join(Path(p).name for p in reasons['missing_file_dep'])}"
    yield "what it depends on is another set of files than last time"


def _worded(check: Any, remembered: dict[str, Any]) -> str:
    if isinstance(check, Inputs):
        return check.cause(remembered)
    return getattr(check, "cause", "it always runs when it is named")


def _shown(path: str, tasks: dict[str, Any]) -> str:
    for task in tasks.values():
        if path in task.targets and Path(path).parent.name == "records":
            return f"what {task.name} made"
    return Path(path).name
