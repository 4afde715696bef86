"""why, status: list the tasks that would run; show one screen about the site. Both only read."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl

from tasks import clock
from tasks.engine.explain import explain
from tasks.engine.spelling import Spelling
from tasks.engine.step import step_of
from tasks.system.terminal import write

_JSON = {
    "name": "json",
    "long": "json",
    "type": bool,
    "default": False,
    "help": "print JSON",
}


class Why(Spelling, DoitCmdBase):  # type: ignore[misc]
    """doit why [TASK ...] [--json]."""

    name = "why"
    doc_purpose = "list the tasks that would run, and why"
    doc_usage = "[TASK ...]"
    doc_description = "Prints each task that would run, with its first cause. Changes nothing."
    cmd_options = (_JSON,)
    execute_tasks = False

    def _execute(self, json: bool) -> int:
        control = TaskControl(self.task_list)
        control.process(self.sel_tasks)
        reasons = explain(control.tasks, control.selected_tasks, self.dep_manager)
        self.dep_manager.close()
        if json:
            rows = [reason.plain() for reason in reasons.values()]
            write(self.outstream, json_format.dumps(rows, indent=1) + "\n")
            return 0
        for task, reason in reasons.items():
            write(self.outstream, f"{task}: {reason}\n")
        if not reasons:
            write(self.outstream, "nothing would run: everything is up to date\n")
        return 0


class Status(DoitCmdBase):  # type: ignore[misc]
    """doit status [--json]."""

    name = "status"
    doc_purpose = "show the lock, the chroots, the last run, the binhosts and disk use"
    doc_usage = "[--json]"
    doc_description = "Changes nothing; needs neither root nor network."
    cmd_options = (_JSON,)
    execute_tasks = False

    def _execute(self, json: bool) -> int:
        control = TaskControl(self.task_list)
        control.process(None)
        reasons = explain(control.tasks, list(control.tasks), self.dep_manager)
        self.dep_manager.close()
        for line in self._lines(control.tasks, reasons, json):
            write(self.outstream, line + "\n")
        return 0

    def _lines(self, tasks: dict[str, Any], reasons: dict[str, Any], json: bool) -> Iterator[str]:
        from tasks.report import json as report_json
        from tasks.report import text
        from tasks.report.gather import gather

        steps = [running.step for task in tasks.values() if (running := step_of(task))]
        site = self.loader.namespace.get("SITE")
        if site is None:  # a dodo.py with tasks of its own
            yield from text.table([name for name, task in tasks.items() if task.targets], reasons)
            return
        chroots = {
            name: [step.task for step in steps if step.chroot == name]
            for name in site.config.chroots
        }
        report = gather(site.layout, [step.key for step in steps], chroots, reasons)
        if json:
            yield report_json.render(report)
        else:
            yield from text.screen(report, clock.now())
