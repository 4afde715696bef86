"""The report of a site as text: one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tasks import messages, text
from tasks.causes import MayChange, Reason
from tasks.report.model import (
    BinhostReport,
    ChrootReport,
    DiskReport,
    LockReport,
    RunReport,
    SiteReport,
)

_WIDTH = 100  # characters of a cause
_PROBLEM_WIDTH = 300


def screen(report: SiteReport, now: float) -> Iterator[str]:
    """The lines of a report; `now` in seconds since the epoch."""
    yield f"lock      {_lock(report.lock)}"
    for update in report.updates:
        yield f"newer     {messages.sentence(update.code, update.fields)}"
    width = max((len(name) for name in report.chroots), default=0)
    for name, chroot in report.chroots.items():
        yield f"chroot    {name:<{width}}  {_chroot(chroot)}"
    yield f"last run  {_last(report.last_run, now)}"
    for name, binhost in report.binhosts.items():
        yield f"binhost   {name:<{width}}  {_binhost(name, binhost)}"
    yield f"disk      {_disk(report.disk)}"
    for problem in report.problems:
        yield f"problem   {text.one_line(problem, _PROBLEM_WIDTH)}"
    stale = sum(reason is not None for reason in report.tasks.values())
    if stale:
        yield f"{stale} of {len(report.tasks)} tasks would run, or might; `doit why` says why"


def table(tasks: Sequence[str], reasons: dict[str, Reason]) -> Iterator[str]:
    """A line for each artifact: its name, its state, and the cause if it is stale."""
    width = max((len(task) for task in tasks), default=0)
    for task in tasks:
        reason = reasons.get(task)
        state = "fresh"
        if reason:
            certain = "" if isinstance(reason.cause, MayChange) else "stale: "
            state = f"{certain}{reason.cause}"
        yield f"{task:<{width}}  {state}"


def _lock(lock: LockReport | None) -> str:
    if lock is None:
        return "nothing is pinned; run `doit lock`"
    age = "" if lock.age_days is None else f" ({lock.age_days} days old)"
    overlays = ", ".join(f"{name} {commit[:7]}" for name, commit in lock.overlays.items())
    seeds = ", ".join(path.rpartition("/")[2] for path in lock.seeds.values())
    return f"tree {lock.tree}{age}; overlays {overlays or 'none'}; seeds {seeds or 'none'}"


def _chroot(chroot: ChrootReport) -> str:
    line = chroot.state
    if chroot.state == "building" and chroot.holder:
        line = f"{chroot.task} is running, process {chroot.holder.process}"
        line += f" since {chroot.holder.since}" if chroot.holder.since else ""
    elif chroot.state == "failed":
        line = f"failed at {chroot.task}"
    elif chroot.state == "stale" and chroot.reason:
        line = f"stale from {chroot.task}: {text.one_line(str(chroot.reason.root), _WIDTH)}"
    return line + (", modified by hand" if chroot.modified else "")


def _binhost(name: str, binhost: BinhostReport) -> str:
    if binhost.current is None:
        return "nothing is published"
    rollback = f"; a rollback, held until `doit publish:{name}`" if binhost.held else ""
    return f"generation {binhost.current} is current, {len(binhost.kept)} kept{rollback}"


def _last(last: RunReport | None, now: float) -> str:
    if last is None:
        return "none"
    bad = [task for task, outcome in last.tasks.items() if outcome == last.outcome != "done"]
    when = last.ended or last.started
    age = f", {text.ago(now - when)} ago" if when else ""
    which = f": {', '.join(bad)}" if bad else f", {text.count(len(last.tasks), 'task')}"
    return f"{last.outcome}{which}{age}; logs in {last.logs}"


def _disk(disk: DiskReport) -> str:
    large = sorted(disk.parts.items(), key=lambda part: -part[1])[:4]
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in large if size > 5e7)
    least = "" if disk.complete else "at least "
    return f"{least}{disk.total / 1e9:.1f} GB" + (f" ({parts})" if parts else "")
