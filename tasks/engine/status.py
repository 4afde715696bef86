"""`doit status`: one screen about the site. Reads only; no root, no network, no lock."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from doit.cmd_base import DoitCmdBase
from doit.control import TaskControl

from tasks.engine.overview import overview
from tasks.engine.why import explain
from tasks.system.terminal import write

_WIDTH = 100  # characters of a cause


class Status(DoitCmdBase):  # type: ignore[misc]
    """doit's command `status`."""

    name = "status"
    doc_purpose = "show the lock, each chroot, the last run, disk use and what is published"
    doc_usage = "[--json]"
    doc_description = "One screen about the site. Changes nothing; needs neither root nor network."
    cmd_options = (
        {
            "name": "json",
            "long": "json",
            "type": bool,
            "default": False,
            "help": "as JSON, for a program",
        },
    )
    execute_tasks = False

    def _execute(self, json: bool) -> int:
        control = TaskControl(self.task_list)
        control.process(None)
        causes = explain(control.tasks, list(control.tasks), self.dep_manager)
        self.dep_manager.close()
        site = self.loader.namespace.get("SITE")
        if site is None:  # a dodo.py with tasks of its own
            lines = table(control.tasks, causes)
        else:
            found = overview(site.layout, list(site.config.chroots), control.tasks, causes)
            lines = [_as_json(found)] if json else list(screen(found, time.time()))
        for line in lines:
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


def screen(found: dict[str, Any], now: float) -> Iterator[str]:
    """The lines of an overview; `now` in seconds since the epoch."""
    yield f"lock      {_lock(found['lock'])}"
    for line in found["newer"]:
        yield f"newer     {line}"
    width = max((len(name) for name in found["chroots"]), default=0)
    for name, chroot in found["chroots"].items():
        yield f"chroot    {name:<{width}}  {_chroot(chroot)}"
    yield f"last run  {_last(found['last_run'], now)}"
    for name, made in found["generations"].items():
        yield f"binhost   {name:<{width}}  {_published(name, made)}"
    yield f"disk      {_disk(found['disk'])}"
    for problem in found["problems"]:
        yield f"problem   {_plain(problem, 300)}"
    stale = sum(cause is not None for cause in found["tasks"].values())
    if stale:
        yield f"{stale} of {len(found['tasks'])} tasks would run or might; `doit why` says why"


def _lock(lock: dict[str, Any] | None) -> str:
    if lock is None:
        return "nothing is pinned; `doit lock`"
    age = "" if lock["age_days"] is None else f" ({lock['age_days']} days old)"
    overlays = ", ".join(f"{name} {commit[:7]}" for name, commit in lock["overlays"].items())
    seeds = ", ".join(path.rpartition("/")[2] for path in lock["seeds"].values())
    return f"tree {lock['tree']}{age}; overlays {overlays or 'none'}; seeds {seeds or 'none'}"


def _chroot(chroot: dict[str, Any]) -> str:
    told = str(chroot["state"])
    if told == "building":
        told = (
            f"{chroot['task']} is being made, process {chroot['process']} since {chroot['since']}"
        )
    elif told == "failed":
        told = f"failed at {chroot['task']}"
    elif told == "stale":
        cause = re.sub(r" \([^()]* -> .*\)$", "", chroot["cause"])
        told = f"stale from {chroot['task']} on: {_plain(cause)}"
    return told + (", touched by hand" if chroot["touched"] else "")


def _published(name: str, made: dict[str, Any]) -> str:
    if made["current"] is None:
        return "nothing is published"
    held = f"; held after a rollback, until `doit publish:{name}`" if made["held"] else ""
    return f"generation {made['current']} is current, {len(made['kept'])} kept{held}"


def _last(last: dict[str, Any] | None, now: float) -> str:
    if last is None:
        return "none is remembered"
    bad = [task for task, outcome in last["tasks"].items() if outcome == last["outcome"] != "done"]
    when = last["ended"] or last["began"]
    ago = f", {_ago(now - when)} ago" if when else ""
    which = f": {', '.join(bad)}" if bad else f", {len(last['tasks'])} tasks"
    return f"{last['outcome']}{which}{ago}; logs in {last['logs']}"


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _disk(disk: dict[str, Any]) -> str:
    large = sorted(disk["bytes"].items(), key=lambda part: -part[1])[:4]
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in large if size > 5e7)
    least = "" if disk["complete"] else "at least "
    return f"{least}{disk['total'] / 1e9:.1f} GB" + (f" ({parts})" if parts else "")


def _plain(text: str, width: int = _WIDTH) -> str:
    """One line without control characters, of a length that fits a screen."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= width else line[: width - 3] + "..."


def _as_json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, sort_keys=True)
