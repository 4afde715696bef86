"""Disk space below a folder, with the sizes of its large trees kept from when they were made.

A seed, a layer or an export is complete under its final name and never written again. The run that
made it measures it once and keeps the size in a small file, so that `doit status` has the true
size without a walk through hundreds of thousands of files.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path

from tasks.system.files import write_atomic

_BLOCK = 512  # bytes, the unit of st_blocks


@dataclass(frozen=True)
class Usage:
    """Bytes by entry of a folder; not `complete` where the time was up or a folder was closed.

    A file with several names counts once, for the first entry (by name) that has it.
    """

    parts: Mapping[str, int]
    complete: bool


@dataclass(frozen=True)
class _Record:
    """The size of a tree in bytes, and what tells it from another tree at the same path."""

    size: int
    identity: str


@dataclass
class _Count:
    """The count so far, and the time to stop (time.monotonic)."""

    until: float = float("inf")
    complete: bool = True
    seen: set[tuple[int, int]] = field(default_factory=set)  # files with several names

    def size(self, status: os.stat_result) -> int:
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if identity in self.seen:
                return 0
            self.seen.add(identity)
        return status.st_blocks * _BLOCK


def disk_size(path: Path) -> int:
    """Measure the bytes that a file or tree takes on the disk; 0 if it is not there."""
    return _measure(str(path), _Count(), {})


def record_sizes(file: Path, trees: Iterable[Path]) -> None:
    """Measure the trees that `file` does not know yet, and keep their sizes in it.

    Trees that are gone are dropped from it. Where it cannot be written, nothing is kept.
    """
    records, sizes = _read(file), {}
    for tree in map(str, trees):
        with contextlib.suppress(FileNotFoundError):
            identity, record = _identity(os.lstat(tree)), records.get(tree)
            if record is None or record.identity != identity:
                record = _Record(_measure(tree, _Count(), {}), identity)
            sizes[tree] = record
    if sizes != records:
        rows = {os.path.relpath(tree, file.parent): astuple(each) for tree, each in sizes.items()}
        with contextlib.suppress(OSError):
            write_atomic(file, json.dumps(rows, sort_keys=True) + "\n")


def usage(folder: Path, file: Path, until: float) -> Usage:
    """Measure each entry of a folder, by the sizes in `file` where it has them.

    `until` (time.monotonic) ends the walk through the rest.
    """
    count, records = _Count(until), _read(file)
    sizes = {}
    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        for part in sorted(folder.iterdir()):
            sizes[part.name] = _measure(str(part), count, records)
    return Usage(sizes, count.complete)


def _measure(path: str, count: _Count, records: Mapping[str, _Record]) -> int:
    total = 0
    waiting = [path]
    while waiting:
        here = waiting.pop()
        if time.monotonic() > count.until:
            count.complete = False
            return total
        try:
            status = os.lstat(here)
            record = records.get(here)
            if record is not None and record.identity == _identity(status):
                total += record.size
                continue
            total += count.size(status)
            if stat.S_ISDIR(status.st_mode):
                for entry in _entries(here):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += count.size(entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            continue  # deleted meanwhile
        except OSError:
            count.complete = False
    return total


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _identity(status: os.stat_result) -> str:
    """Values that distinguish a tree from a later one at the same path."""
    return f"{status.st_ino} {status.st_ctime_ns}"


def _read(file: Path) -> dict[str, _Record]:
    """The records in the file, by absolute path; none where it is missing or damaged."""
    try:
        rows = json.loads(file.read_bytes()).items()
        return {
            f"{file.parent}/{path}": _Record(int(size), str(identity))
            for path, (size, identity) in rows
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
