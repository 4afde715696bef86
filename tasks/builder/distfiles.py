"""Distfiles of a planned package, verified outside; its build gets copies of them.

Fetches in chroots write to DISTDIR, so each file is opened without following links. They may write
there at any time, also to the files of other packages: only a copy stays as it was verified.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.planner.plan import Distfile, PlannedPackage
from tasks.system.disk_space import name_file_if_full

_CHUNK = 1 << 20
# GLEP 74 names -> hashlib's; a file is compared with all of them that its Manifest has
_ALGORITHMS = {"BLAKE2B": "blake2b", "SHA512": "sha512", "SHA256": "sha256"}


def missing(folders: Sequence[Path], package: PlannedPackage) -> list[str]:
    """The names of a package's distfiles of which no folder has an intact copy."""
    return [
        file.name
        for file in package.distfiles
        if not any(is_intact(folder / file.name, file) for folder in folders)
    ]


def provide(folders: Sequence[Path], package: PlannedPackage, target: Path) -> list[str]:
    """Copy a package's distfiles to a new folder; returns the names of those that are missing.

    What is copied is what is verified, so nothing else gets there.
    """
    target.mkdir()
    absent = []
    for file in package.distfiles:
        copy = target / file.name
        if not any(_copy_intact(folder / file.name, file, copy) for folder in folders):
            absent.append(file.name)
    return absent


def is_intact(path: Path, file: Distfile) -> bool:
    """Tell whether a plain file has the size and the digests of a distfile."""
    return _is_intact(path, file, lambda _chunk: None)


def _copy_intact(path: Path, file: Distfile, copy: Path) -> bool:
    """Copy a distfile; returns False, and leaves nothing, if it is not intact."""
    with name_file_if_full(copy), copy.open("xb") as stream:
        intact = _is_intact(path, file, stream.write)
    if not intact:
        copy.unlink()
    return intact


def _is_intact(path: Path, file: Distfile, use: Callable[[bytes], object]) -> bool:
    """As is_intact; `use` gets what is read."""
    try:
        stream = open(path, "rb", opener=_open)  # noqa: SIM115 - only the open may fail
    except OSError:  # a directory is one, too
        return False
    with stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
            return False
        sums = {
            name: hashlib.new(algorithm)
            for name, algorithm in _ALGORITHMS.items()
            if name in file.digests
        }
        left = file.size
        while left and (chunk := stream.read(min(_CHUNK, left))):  # it may grow meanwhile
            left -= len(chunk)
            use(chunk)
            for each in sums.values():
                each.update(chunk)
    return bool(sums) and all(file.digests[name] == each.hexdigest() for name, each in sums.items())


def _open(path: str, _flags: int) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
