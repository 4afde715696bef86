"""`doit status`: one screen about the site. Reads only; no root, no network."""

from __future__ import annotations

from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl

from tasks.engine.why import explain
from tasks.system.terminal import write


class Status(DoitCmdBase):  # type: ignore[misc]
    """doit's command `status`."""

    name = "status"
    doc_purpose = "show the lock, each artifact and what would run"
    doc_usage = ""
    doc_description = "Shows each task as fresh or stale, with the cause. Changes nothing."
    cmd_options = ()
    execute_tasks = False

    def _execute(self) -> int:
        control = TaskControl(self.task_list)
        control.process(None)
        causes = explain(control.tasks, list(control.tasks), self.dep_manager)
        self.dep_manager.close()
        for line in table(control.tasks, causes):
            write(self.outstream, line + "\n")
        return 0


def table(tasks: dict[str, Any], causes: dict[str, str]) -> list[str]:
    """A line per artifact: its name, fresh or stale, and why."""
    artifacts = [t for t in tasks.values() if t.targets]
    width = max((len(t.name) for t in artifacts), default=0)
    lines = []
    for task in artifacts:
        cause = causes.get(task.name, "fresh")
        certain = cause != "fresh" and not cause.startswith("runs if ")
        lines.append(f"{task.name:<{width}}  {'stale: ' if certain else ''}{cause}")
    return lines
