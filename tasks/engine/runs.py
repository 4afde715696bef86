"""Runs: one directory of logs each, and a journal of what became of every task.

    state/logs/YYYYMMDDTHHMMSSZ-PID/   the logs of a run, one file per task
      journal                          a JSON object per line: a task began, or how it ended
    state/logs/latest                  a link to the newest one

A run that finds nothing to do leaves nothing. Lines are appended in one write(2) each, so the
processes of `doit -n` share a journal, and a killed run leaves a whole one.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.system.disk_space import filling
from tasks.system.files import remove_tree

_NAME = re.compile(r"(\d{8}T\d{6}Z)-(\d+)")
_STAMP = "%Y%m%dT%H%M%SZ"
_REMEMBERED = 20  # runs that are asked how long a task takes
_MEGABYTE = 1_000_000
_LARGEST = 64 * _MEGABYTE  # bytes of a log that is looked through for secrets
_SECRETS = (
    (re.compile(rb"(?<=://)[^/\s@'\"]+@"), b"***@"),
    (re.compile(rb"(?i)((?:proxy-)?authorization\s*[:=]\s*)[^\r\n]+"), rb"\1***"),
)


def began(layout: Layout, task: str) -> None:
    """Write down that a task begins; the first one makes the run's directory and the link."""
    if not layout.logs.is_dir():
        layout.logs.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        layout.run_logs.mkdir()
        if layout.run:
            link = layout.logs / f".latest.{os.getpid()}"
            link.unlink(missing_ok=True)
            link.symlink_to(layout.run)
            link.rename(layout.logs / "latest")
    _append(layout, {"task": task, "began": int(time.time())})


def ended(layout: Layout, task: str, outcome: str, seconds: float, message: str = "") -> None:
    """Write down how a task ended: `done`, `failed`, `bug` or `interrupted`; mask its logs.

    The work itself has ended by now: that this cannot be written is no failure.
    """
    message = _masked(message.encode()).decode("utf-8", "replace")
    with contextlib.suppress(OSError):
        _append(
            layout,
            {
                "task": task,
                "ended": int(time.time()),
                "outcome": outcome,
                "seconds": round(seconds, 1),
                "message": message,
            },
        )
        log = layout.log(task)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"{outcome} after {seconds:.1f} s\n" + (f"{message}\n" if message else ""))
        _mask(log)
        name = task.partition(":")[2]
        if name:
            for folder, _, files in os.walk(layout.package_logs(name)):
                for file in files:
                    _mask(Path(folder, file))


def journal(folder: Path) -> list[dict[str, Any]]:
    """A run's tasks in the order they began, each with how it ended; `outcome` may be missing.

    Lines that cannot be read are left out: this is for telling, nothing depends on it.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = (folder / "journal").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            entry = json.loads(line)
            found.setdefault(str(entry["task"]), {}).update(entry)
    return list(found.values())


def folders(layout: Layout) -> list[Path]:
    """The runs that are kept, newest first."""
    with contextlib.suppress(OSError):
        runs = [p for p in layout.logs.iterdir() if _NAME.fullmatch(p.name) and p.is_dir()]
        return sorted(runs, reverse=True)
    return []


def expected(layout: Layout) -> dict[str, float]:
    """Seconds that each task took when it last ended well."""
    found: dict[str, float] = {}
    for folder in folders(layout)[:_REMEMBERED]:
        for entry in journal(folder):
            seconds = entry.get("seconds")
            if entry.get("outcome") == "done" and isinstance(seconds, (int, float)):
                found.setdefault(str(entry["task"]), float(seconds))
    return found


def prune_at_exit(layout: Layout, days: int, megabytes: int) -> None:
    """When this process has made a run, let old ones go at its end."""
    owner = os.getpid()

    def leave() -> None:
        if os.getpid() == owner and layout.run and layout.run_logs.is_dir():
            with contextlib.suppress(OSError, BinmillError):  # what stays is tried again next time
                prune(layout, days, megabytes, now=time.time())

    atexit.register(leave)


def prune(layout: Layout, days: int, megabytes: int, now: float) -> list[str]:
    """Delete runs older than `days` and, the oldest first, what is beyond `megabytes`.

    This run and those whose process lives stay. Returns the names of those that went. What a
    killed run could not do is done before: its logs are masked, its journal is brought to an end.
    """
    for folder in folders(layout)[:_REMEMBERED]:
        _settle(layout, folder)
    oldest = time.strftime(_STAMP, time.gmtime(now - days * 86400))
    total, gone = 0, []
    for folder in folders(layout):
        parts = [folder, *layout.package_logs_of(folder.name)]
        total += sum(_size(part) for part in parts)
        match = _NAME.fullmatch(folder.name)
        if match is None or folder.name == layout.run or _alive(int(match[2])):
            continue
        if match[1] < oldest or total > megabytes * _MEGABYTE:
            for part in parts:
                remove_tree(part, layout.trash)
            gone.append(folder.name)
    return gone


def _settle(layout: Layout, folder: Path) -> None:
    """End the journal of a run whose process is gone, task by task; see `ended`."""
    match = _NAME.fullmatch(folder.name)
    if match is None or folder.name == layout.run or _alive(int(match[2])):
        return
    then = replace(layout, run=folder.name)
    for entry in journal(folder):
        if "outcome" not in entry:
            last = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            ended(
                then, str(entry["task"]), "interrupted", max(0.0, last - entry.get("began", last))
            )


def _append(layout: Layout, entry: dict[str, Any]) -> None:
    path = layout.run_logs / "journal"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        with filling(path):
            os.write(descriptor, (json.dumps(entry, sort_keys=True) + "\n").encode())
    finally:
        os.close(descriptor)


def _mask(log: Path) -> None:
    """Take secrets out of a log; a link, which a chroot may have left, is not followed."""
    descriptor = os.open(log, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "r+b") as stream:  # noqa: PTH123 - opened without following links
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return
        text = stream.read()
        clean = _masked(text)
        if clean != text:
            stream.seek(0)
            stream.write(clean)
            stream.truncate()


def _masked(text: bytes) -> bytes:
    for mark, instead in _SECRETS:
        text = mark.sub(instead, text)
    return text


def _alive(process: int) -> bool:
    return Path("/proc", str(process)).exists()


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += Path(place, file).lstat().st_size
    return total
