"""A full disk, explained: programs often hide that reason behind words of their own."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import BinmillError, DiskFull

_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_FULL_BYTES, _FULL_INODES = 1 << 20, 16  # with less, a file system is full


def shortage(path: Path) -> DiskFull | None:
    """Return an error that says what the file system of `path` has run out of; None: nothing."""
    try:
        left = os.statvfs(path)
    except OSError:
        return None
    if left.f_bavail * left.f_frsize < _FULL_BYTES:
        return DiskFull("no-space-left", path=path)
    if left.f_files and left.f_favail < _FULL_INODES:
        return DiskFull("no-inodes-left", path=path)
    return None


@contextlib.contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Raise DiskFull for a BinmillError in the block, where the file system of `path` is full.

    It stands where the error has not yet led to anything being deleted: after that there is space.
    An OSError says by itself that there was none.
    """
    try:
        yield
    except DiskFull:
        raise
    except OSError as error:
        if error.errno not in _FULL_ERRORS:
            raise
        cause = ": ".join(filter(None, (error.strerror, str(error.filename or ""))))
        reason = (shortage(path) or DiskFull("no-space-left", path=path)).message
        raise DiskFull("disk-full", cause=cause, reason=reason) from error
    except BinmillError as error:
        if full := shortage(path):
            raise DiskFull("disk-full", cause=error.message, reason=full.message) from error
        raise


@contextlib.contextmanager
def name_file_if_full(path: Path) -> Iterator[None]:
    """Name the file in the error of a full disk: write(2) knows no names."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_ERRORS:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
