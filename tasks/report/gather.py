"""Gathers the report of a site. Reads only: no lock is taken, no program run, no server asked.

What cannot be read is a line in `problems`, never an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks import clock, journal, records, updates
from tasks import lock as lock_file
from tasks.causes import Reason
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.lock import Lock
from tasks.publish import generation
from tasks.records import BINPKGS, CHROOT, SNAPSHOT, Key
from tasks.report.model import (
    BinhostReport,
    ChrootReport,
    DiskReport,
    Holder,
    LockReport,
    RunReport,
    SiteReport,
)
from tasks.system.disk_usage import usage
from tasks.system.notes import Note

_DISK_SECONDS = 0.4
_HOLDER = re.compile(r"process (\d+)(?: since (.+))?")


def gather(
    layout: Layout,
    artifacts: Iterable[Key[Any]],
    chroots: Mapping[str, Sequence[str]],
    reasons: Mapping[str, Reason],
) -> SiteReport:
    """Gather everything. `chroots` has the tasks of each chroot, in the order of the flow."""
    keys = list(artifacts)
    problems: list[str] = []
    last = last_run(layout)
    lock = _lock(layout, problems)
    for key in keys:
        problems += _damage(layout, key)
    return SiteReport(
        lock=_pins(lock) if lock else None,
        updates=tuple(_updates(layout, lock)),
        chroots={
            name: _chroot(layout, name, tasks, reasons, last) for name, tasks in chroots.items()
        },
        tasks={key.task: reasons.get(key.task) for key in keys},
        last_run=last,
        binhosts={name: _binhost(layout, name) for name in chroots},
        disk=_disk(layout),
        problems=tuple(problems),
    )


def last_run(layout: Layout) -> RunReport | None:
    """The newest run that did something."""
    folder = next(iter(journal.folders(layout)), None)
    if folder is None:
        return None
    runs = journal.task_runs(folder)
    outcomes: dict[str, str] = {}
    for run in runs:
        if run.ended:
            outcomes[run.task] = run.ended.outcome
        else:
            outcomes[run.task] = "running" if holder(layout, run.task) else "interrupted"
    ranking = ("running", "bug", "failed", "interrupted", "done")
    return RunReport(
        name=folder.name,
        logs=str(folder),
        outcome=next((word for word in ranking if word in outcomes.values()), "unknown"),
        tasks=outcomes,
        started=min((run.started.time for run in runs), default=None),
        ended=max((run.ended.time for run in runs if run.ended), default=None),
    )


def holder(layout: Layout, task: str) -> Holder | None:
    """The process that makes an artifact, and since when; asked of the kernel, without a lock.

    /proc/locks (proc(5)) has the process and the inode; the file's text must name the same one.
    """
    path = layout.task_lock(task)
    with contextlib.suppress(OSError, ValueError, IndexError):
        inode = path.stat().st_ino
        match = _HOLDER.match(path.read_text(encoding="utf-8", errors="replace"))
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            place = fields[5].rpartition(":")[2] if fields[1] == "FLOCK" else ""
            if match and place == str(inode) and fields[4] == match[1]:
                return Holder(int(match[1]), match[2] or "")
    return None


def _disk(layout: Layout) -> DiskReport:
    """The disk space below each part of state/; not complete when the time is up."""
    disk = usage(layout.state, layout.sizes, time.monotonic() + _DISK_SECONDS)
    return DiskReport(disk.parts, disk.complete)


def _lock(layout: Layout, problems: list[str]) -> Lock | None:
    try:
        return lock_file.read_or_none(layout)
    except BinmillError as error:
        problems.append(error.message)
        return None


def _pins(lock: Lock) -> LockReport:
    age = None
    with contextlib.suppress(ValueError):
        day = datetime.strptime(lock.tree.tag, "%Y%m%d").replace(tzinfo=UTC)
        age = (clock.today() - day).days
    return LockReport(
        tree=lock.tree.tag,
        commit=lock.tree.commit,
        age_days=age,
        overlays={name: pin.commit for name, pin in lock.overlays.items()},
        seeds={name: pin.path for name, pin in lock.seeds.items()},
    )


def _updates(layout: Layout, lock: Lock | None) -> Iterable[Note]:
    """Updates upstream of the pins, as earlier runs have found them."""
    if lock is None:
        return
    with contextlib.suppress(BinmillError):
        frozen = records.load(layout, SNAPSHOT()).tag
        if frozen > lock.tree.tag:
            yield Note("tree-newer", {"tag": frozen})
    pins = {f"overlay:{name}": pin.commit for name, pin in lock.overlays.items()}
    pins |= {f"seed:{name}": pin.path for name, pin in lock.seeds.items()}
    for task, pin in pins.items():
        if update := updates.read(layout, task, pin):
            yield update


def _chroot(
    layout: Layout,
    name: str,
    tasks: Sequence[str],
    reasons: Mapping[str, Reason],
    last: RunReport | None,
) -> ChrootReport:
    modified = os.path.lexists(layout.manual_changes(name)) or _on_modified(layout, name)
    for task in reversed(tasks):
        if process := holder(layout, task):
            return ChrootReport("building", task, reasons.get(task), process, modified)
    stale = [task for task in tasks if task in reasons]
    failed = [t for t in stale if last and last.tasks.get(t) in ("failed", "bug")]
    if failed:
        return ChrootReport("failed", failed[0], reasons[failed[0]], None, modified)
    if stale:
        return ChrootReport("stale", stale[0], reasons[stale[0]], None, modified)
    return ChrootReport("fresh", modified=modified)


def _on_modified(layout: Layout, name: str) -> bool:
    """True if a chroot was derived from one that was modified by hand."""
    with contextlib.suppress(BinmillError):
        return bool(records.load(layout, CHROOT(name)).modified)
    return False


def _binhost(layout: Layout, name: str) -> BinhostReport:
    binhost = layout.binhost(name)
    number, numbers, rollback_holds = None, list[int](), False
    with contextlib.suppress(OSError, ValueError):
        numbers = generation.numbers(binhost)
        number = generation.current(binhost)
    with contextlib.suppress(BinmillError, OSError, ValueError):
        current = generation.load_current(binhost)
        rollback = current.issue.rollback if current else None
        set_id = records.load(layout, BINPKGS(name)).set
        rollback_holds = rollback is not None and rollback.instead_of == set_id
    return BinhostReport(number, tuple(numbers), rollback_holds)


def _damage(layout: Layout, key: Key[Any]) -> list[str]:
    path = layout.record(key.task)
    try:
        records.parse(key, path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
    except ValueError:
        return [f"{path} is damaged; `doit {key.task}` makes it again"]
    return []
