"""Checks of an unpacked tree before it becomes a seed."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from tasks.errors import BinmillError
from tasks.seed.policy import CAPABILITY, PrivilegedFile
from tasks.seed.tar_stream import ArchiveRefused

_REQUIRED = ("bin/sh", "usr/bin/emerge", "usr/bin/env")


def check(root: Path) -> None:
    """Raise ArchiveRefused unless a tree is a stage that can be entered and has Portage."""
    status = root.stat()
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
        raise ArchiveRefused("stage-root-writable")
    missing = [path for path in _REQUIRED if not exists_inside(root, path)]
    if not missing:
        return
    folders = [entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink()]
    if len(folders) == 1 and all(exists_inside(folders[0], path) for path in _REQUIRED):
        raise ArchiveRefused("stage-in-subdirectory", folder=folders[0].name)
    raise ArchiveRefused("stage-lacks-file", path=missing[0])


def check_privileges(root: Path, privileged: Mapping[bytes, PrivilegedFile]) -> None:
    """Raise BinmillError unless setuid bits and file capabilities on disk are as in the archive.

    tar only warns where a file system cannot store them.
    """
    for path, expected in privileged.items():
        file = os.path.join(os.fsencode(root), path)  # noqa: PTH118 - bytes: any name
        try:
            capability = os.getxattr(file, CAPABILITY, follow_symlinks=False)
        except OSError:
            capability = b""
        mode = os.lstat(file).st_mode
        if capability != expected.capability or (mode ^ expected.mode) & 0o7777:
            lost = "mode" if capability == expected.capability else "capabilities"
            raise BinmillError("stage-privileges-lost", path=os.fsdecode(path), lost=lost)


def exists_inside(root: Path, path: str, depth: int = 20) -> bool:
    """Return True if a path exists when `root` is the root; links are followed inside only."""
    position: list[str] = []
    pending = path.split("/")
    while pending:
        part = pending.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            position = position[:-1]
            continue
        step = root.joinpath(*position, part)
        if step.is_symlink():
            depth -= 1
            if depth == 0:
                return False
            target = str(step.readlink())
            if target.startswith("/"):
                position = []
            pending = target.split("/") + pending
        else:
            position.append(part)
    return root.joinpath(*position).exists()
