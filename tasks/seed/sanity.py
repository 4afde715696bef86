"""What an extracted tree must be before it is called a seed."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from tasks.errors import BinmillError, NotTrusted
from tasks.seed.policy import CAPABILITY, Privileged

_WANTED = ("bin/sh", "usr/bin/emerge", "usr/bin/env")


def check(root: Path) -> None:
    """Whether a tree is a stage that can be entered and has Portage; raises NotTrusted."""
    status = root.stat()
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
        raise NotTrusted(f"the stage's root directory is not root's alone ({root})")
    lacks = [wanted for wanted in _WANTED if not exists_inside(root, wanted)]
    if not lacks:
        return
    inner = [entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink()]
    if len(inner) == 1 and all(exists_inside(inner[0], wanted) for wanted in _WANTED):
        raise NotTrusted(
            f"this is no Gentoo stage: all of it lies in a directory of its own ({inner[0].name}/)",
            "pack it again from inside that directory: tar -C DIRECTORY -c .",
        )
    raise NotTrusted(f"this is no Gentoo stage: it has no /{lacks[0]}", "check [seeds]")


def check_kept(root: Path, privileged: Mapping[bytes, Privileged]) -> None:
    """Whether setuid bits and file capabilities are on disk as they were in the archive.

    tar only warns where a file system cannot keep them. Raises BinmillError.
    """
    for path, wanted in privileged.items():
        file = os.path.join(os.fsencode(root), path)  # noqa: PTH118 - bytes: any name
        try:
            capability = os.getxattr(file, CAPABILITY, follow_symlinks=False)
        except OSError:
            capability = b""
        mode = os.lstat(file).st_mode
        if capability != wanted.capability or (mode ^ wanted.mode) & 0o7777:
            what = "mode" if capability == wanted.capability else "capabilities"
            raise BinmillError(
                f"the {what} of /{os.fsdecode(path)} did not survive: this file system loses them",
                "let state/ be on a file system with extended attributes and setuid (ext4, XFS, "
                "btrfs; no nosuid), then run the same command again",
            )


def exists_inside(root: Path, path: str, depth: int = 20) -> bool:
    """Whether a path leads to a file when `root` is the root; links are followed inside only."""
    here: list[str] = []
    pending = path.split("/")
    while pending:
        part = pending.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            here = here[:-1]
            continue
        step = root.joinpath(*here, part)
        if step.is_symlink():
            depth -= 1
            if depth == 0:
                return False
            target = str(step.readlink())
            if target.startswith("/"):
                here = []
            pending = target.split("/") + pending
        else:
            here.append(part)
    return root.joinpath(*here).exists()
