"""What a person is told where the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import BinmillError, DiskFull

_ROOM, _ROOM_FILES = 1 << 20, 16  # bytes, inodes; with less, a file system is full


def no_room(path: Path) -> str:
    """What a file system has run out of, in a few words with what to look at; "" where it has not.

    Programs often hide the reason behind words of their own.
    """
    try:
        found = os.statvfs(path)
    except OSError:
        return ""
    if found.f_bavail * found.f_frsize < _ROOM:
        return f"there is no space left on device: df -h {path}"
    if found.f_files and found.f_favail < _ROOM_FILES:
        return f"there are no inodes left on device: df -i {path}"
    return ""


@contextlib.contextmanager
def room_told(path: Path) -> Iterator[None]:
    """Raise DiskFull for a BinmillError in the block, where the file system of `path` is full.

    It stands where the error has not yet led to anything being deleted: after that there is room.
    """
    try:
        yield
    except DiskFull:
        raise
    except BinmillError as error:
        if lack := no_room(path):
            raise DiskFull(f"{error.message} ({lack})", error.hint) from error
        raise


@contextlib.contextmanager
def filling(path: Path) -> Iterator[None]:
    """Name the file that the disk has no room for: write(2) knows no names."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
