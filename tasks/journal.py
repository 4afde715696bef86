"""Runs: one folder of logs each, and a journal of events.

    state/logs/YYYYMMDDTHHMMSSZ-PID/   the logs of a run, one file per task
      journal                          events as JSON lines: a task started, a note, a task ended
    state/logs/latest                  a link to the newest one

A run that finds nothing to do leaves nothing. Lines are appended in one write(2) each, so the
processes of `doit -n` share a journal, and a killed run leaves a whole one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from tasks import clock
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.messages import Field
from tasks.system.disk_space import name_file_if_full
from tasks.system.files import remove_tree
from tasks.system.notes import Note
from tasks.text import json_data, without_secrets

_NAME = re.compile(r"(\d{8}T\d{6}Z)-(\d+)")
_STAMP = "%Y%m%dT%H%M%SZ"
_RECENT_RUNS = 20  # runs in which the usual time of a task is looked up
_MEGABYTE = 1_000_000
_LARGEST = 64 * _MEGABYTE  # bytes of a log that is searched for secrets
Outcome = Literal["done", "failed", "bug", "interrupted"]


@dataclass(frozen=True)
class TaskStarted:
    """A task started; `time` in epoch seconds."""

    event: ClassVar[str] = "task-started"
    task: str
    time: int


@dataclass(frozen=True)
class TaskEnded:
    """A task ended after `seconds`; of a failed one, the error's code, fields and sentence."""

    event: ClassVar[str] = "task-ended"
    task: str
    time: int
    outcome: Outcome
    seconds: float
    code: str = ""
    fields: Mapping[str, Field] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class TaskNote:
    """A note of a task: the code of its sentence, and what fills the blanks."""

    event: ClassVar[str] = "note"
    task: str
    time: int
    code: str
    fields: Mapping[str, Field] = field(default_factory=dict)


Event = TaskStarted | TaskEnded | TaskNote
_EVENTS: tuple[type[Event], ...] = (TaskStarted, TaskEnded, TaskNote)


@dataclass(frozen=True)
class TaskRun:
    """One task of a run; `ended` is None while it runs, or where the run was killed."""

    started: TaskStarted
    ended: TaskEnded | None = None
    notes: tuple[TaskNote, ...] = ()

    @property
    def task(self) -> str:
        """Its name."""
        return self.started.task


def start(layout: Layout, task: str) -> None:
    """Record that a task starts; the first one makes the run's folder and the link."""
    if not layout.logs.is_dir():
        layout.logs.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        layout.run_logs.mkdir()
        if layout.run:
            link = layout.logs / f".latest.{os.getpid()}"
            link.unlink(missing_ok=True)
            link.symlink_to(layout.run)
            link.rename(layout.logs / "latest")
    _append(layout, TaskStarted(task, int(clock.now())))


def add_note(layout: Layout, task: str, note: Note) -> None:
    """Record a note; the work goes on where it cannot be written."""
    with contextlib.suppress(OSError):
        _append(layout, TaskNote(task, int(clock.now()), note.code, note.fields))


def end(
    layout: Layout,
    task: str,
    outcome: Outcome,
    seconds: float,
    error: BinmillError | None = None,
) -> None:
    """Record how a task ended, and mask its logs.

    The work itself has ended by now: it does not fail where this cannot be written.
    """
    message = str(json_data(error.message)) if error else ""
    code, fields = (error.code, error.fields) if error else ("", {})
    with contextlib.suppress(OSError):
        now = int(clock.now())
        _append(layout, TaskEnded(task, now, outcome, round(seconds, 1), code, fields, message))
        log = layout.log(task)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"{outcome} after {seconds:.1f} s\n" + (f"{message}\n" if message else ""))
        _mask(log)
        name = task.partition(":")[2]
        if name:
            for folder, _, files in os.walk(layout.package_logs(name)):
                for file in files:
                    _mask(Path(folder, file))


def events(folder: Path) -> list[Event]:
    """The events of a run, in their order; a line that cannot be read is left out."""
    try:
        lines = (folder / "journal").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    entries: list[Event] = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            raw = json.loads(line)
            name = raw.pop("event")
            entries += [kind(**raw) for kind in _EVENTS if kind.event == name]
    return entries


def task_runs(folder: Path) -> list[TaskRun]:
    """The tasks of a run, in the order in which they started."""
    runs: dict[str, TaskRun] = {}
    for event in events(folder):
        if isinstance(event, TaskStarted):
            runs.setdefault(event.task, TaskRun(event))
        elif run := runs.get(event.task):
            if isinstance(event, TaskEnded):
                runs[event.task] = replace(run, ended=event)
            else:
                runs[event.task] = replace(run, notes=(*run.notes, event))
    return list(runs.values())


def folders(layout: Layout) -> list[Path]:
    """The runs that are kept, newest first."""
    with contextlib.suppress(OSError):
        runs = [p for p in layout.logs.iterdir() if _NAME.fullmatch(p.name) and p.is_dir()]
        return sorted(runs, reverse=True)
    return []


def usual_seconds(layout: Layout) -> dict[str, float]:
    """The seconds that each task took when it last succeeded."""
    seconds: dict[str, float] = {}
    for folder in folders(layout)[:_RECENT_RUNS]:
        for run in task_runs(folder):
            if run.ended and run.ended.outcome == "done":
                seconds.setdefault(run.task, run.ended.seconds)
    return seconds


def prune(layout: Layout, days: int, megabytes: int, now: float) -> list[str]:
    """Delete runs older than `days` and, the oldest first, those beyond `megabytes`.

    This run and those whose process lives stay. Returns the names of the deleted ones. Before, the
    journals of killed runs are completed and their logs masked.
    """
    for folder in folders(layout)[:_RECENT_RUNS]:
        _settle(layout, folder)
    oldest = time.strftime(_STAMP, time.gmtime(now - days * 86400))
    total, names = 0, []
    for folder in folders(layout):
        parts = [folder, *layout.package_logs_of(folder.name)]
        total += sum(_size(part) for part in parts)
        match = _NAME.fullmatch(folder.name)
        if match is None or folder.name == layout.run or _alive(int(match[2])):
            continue
        if match[1] < oldest or total > megabytes * _MEGABYTE:
            for part in parts:
                remove_tree(part, layout.trash)
            names.append(folder.name)
    return names


def _settle(layout: Layout, folder: Path) -> None:
    """End the journal of a run whose process is gone, task by task; see `end`."""
    match = _NAME.fullmatch(folder.name)
    if match is None or folder.name == layout.run or _alive(int(match[2])):
        return
    then = replace(layout, run=folder.name)
    for run in task_runs(folder):
        if run.ended is None:
            last = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            end(then, run.task, "interrupted", max(0.0, last - run.started.time))


def _append(layout: Layout, event: Event) -> None:
    path = layout.run_logs / "journal"
    line = json.dumps({"event": event.event, **json_data(asdict(event))}, sort_keys=True) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        with name_file_if_full(path):
            os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _mask(log: Path) -> None:
    """Take secrets out of a log; a link, which a chroot may have left, is not followed."""
    descriptor = os.open(log, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "r+b") as stream:  # noqa: PTH123 - opened without following links
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            return
        text = stream.read()
        clean = without_secrets(text)
        if clean != text:
            stream.seek(0)
            stream.write(clean)
            stream.truncate()


def _alive(process: int) -> bool:
    return Path("/proc", str(process)).exists()


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += Path(place, file).lstat().st_size
    return total
