"""why, status: list the tasks that would run; show one screen about the site. Both only read."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl

from tasks import clock
from tasks.causes import Reason
from tasks.engine.explain import explain
from tasks.engine.spelling import Spelling
from tasks.engine.step import step_of
from tasks.errors import BinmillError, Stale
from tasks.records import BINPKGS
from tasks.system.terminal import write

if TYPE_CHECKING:
    from tasks.planner.forecast import Forecast

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
    doc_description = (
        "Prints each task that would run, with its first cause, and the packages that a build of\n"
        "package sets would build. Changes nothing."
    )
    cmd_options = (_JSON,)
    execute_tasks = False

    def _execute(self, json: bool) -> int:
        control = TaskControl(self.task_list)
        control.process(self.sel_tasks)
        reasons = explain(control.tasks, control.selected_tasks, self.dep_manager)
        self.dep_manager.close()
        named = [*control.selected_tasks]
        for task in control.selected_tasks:  # of a group, its tasks
            named += control.tasks[task].task_dep if control.tasks[task].has_subtask else ()
        forecasts = self._forecasts(control.tasks, reasons, named)
        if json:
            rows = [
                reason.plain()
                | ({"forecast": _plain(forecasts[task])} if task in forecasts else {})
                for task, reason in reasons.items()
            ]
            rows += [
                {"task": task, "up_to_date": True, "forecast": _plain(each)}
                for task, each in forecasts.items()
                if task not in reasons
            ]
            write(self.outstream, json_format.dumps(rows, indent=1) + "\n")
            return 0
        for task, reason in reasons.items():
            write(self.outstream, f"{task}: {reason}\n")
        if not reasons:
            write(self.outstream, "nothing would run: everything is up to date\n")
        for task, each in forecasts.items():
            write(
                self.outstream, "".join(f"{line}\n" for line in _lines(task, each, task in named))
            )
        return 0

    def _forecasts(
        self, tasks: Mapping[str, Any], reasons: Mapping[str, Reason], named: Sequence[str]
    ) -> dict[str, Forecast | BinmillError]:
        """The packages of each set that would be built, or was named; an error if it is unknown."""
        site = self.loader.namespace.get("SITE")
        if site is None or site.config.build.driver != "per-package":
            return {}
        from tasks.flow.forecast import forecast

        causes = {task: reason.cause for task, reason in reasons.items()}
        forecasts: dict[str, Forecast | BinmillError] = {}
        for chroot in site.chroots:
            task = BINPKGS(chroot.name).task
            if task not in tasks or (task not in reasons and task not in named):
                continue
            try:
                forecasts[task] = forecast(chroot, causes)
            except BinmillError as error:
                if task in named or not isinstance(error, Stale):  # what never ran has no plan
                    forecasts[task] = error
        return forecasts


def _plain(forecast: Forecast | BinmillError) -> dict[str, Any]:
    if isinstance(forecast, BinmillError):
        return {"error": forecast.code, "sentence": str(forecast)}
    return forecast.plain()


def _lines(task: str, forecast: Forecast | BinmillError, named: bool) -> Iterator[str]:
    """The lines of a forecast below the name of its task; all packages if that was named."""
    yield f"\n{task}:"
    if isinstance(forecast, BinmillError):
        yield str(forecast)
    else:
        yield from forecast.lines(reused=named)


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
