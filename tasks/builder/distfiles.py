"""Distfiles of a planned package, verified outside, before its build gets them.

Fetches in chroots write to DISTDIR, so each file is opened without following links.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tasks.planner.plan import Distfile, PlannedPackage

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


def is_intact(path: Path, file: Distfile) -> bool:
    """Tell whether a plain file has the size and the digests of a distfile."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
            return False
        sums = {
            name: hashlib.new(algorithm)
            for name, algorithm in _ALGORITHMS.items()
            if name in file.digests
        }
        while chunk := stream.read(_CHUNK):
            for each in sums.values():
                each.update(chunk)
    return bool(sums) and all(file.digests[name] == each.hexdigest() for name, each in sums.items())
