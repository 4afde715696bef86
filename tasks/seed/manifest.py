"""What each file of a seed must be, taken down while its archive goes by: `doit fsck` reads it.

To read a gigabyte of files again for that would take as long as half of the unpacking.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.seed.policy import CAPABILITY, inner_path
from tasks.seed.tar_stream import Look, Member
from tasks.system import tree_manifest

_KINDS = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symbolic link": stat.S_IFLNK,
    "character device": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
}


class Inventory:
    """Gathers the entries of a listing (system.tree_manifest) from members that were let in."""

    def __init__(self) -> None:
        self._facts: dict[bytes, list[Any]] = {}  # a hard link has the same ones as its file
        self._lines: list[str] = []  # written down at once: at the end somebody waits
        self._later: list[bytes] = []  # what is to be looked at on disk, and is not in them
        self._open: tuple[bytes, list[Any], Any] | None = None  # whose data go by, and their hash

    def add(self, path: bytes, member: Member) -> Look | None:
        """Take one more down; its data are to be given to what is returned."""
        self._close()
        if member.kind == "hard link":
            facts = self._facts[path] = self._facts[inner_path(member.target)]
            self._take_down(path, facts)
            return None
        facts = self._facts[path] = _facts(member)
        if member.kind != "file":
            self._take_down(path, facts)
            return None
        if member.sparse:
            facts[4] = None
            self._take_down(path, facts)
            return None
        digest = hashlib.sha256()
        self._open = path, facts, digest
        return digest.update

    def _close(self) -> None:
        if self._open is not None:
            path, facts, digest = self._open
            facts[4] = digest.hexdigest()
            self._open = None
            self._take_down(path, facts)

    def _take_down(self, path: bytes, facts: list[Any]) -> None:
        if facts[4] is None:  # the data of a sparse file are not what will be read from it
            self._later.append(path)
        else:
            self._lines.append(tree_manifest.line([os.fsdecode(path) or ".", *facts]))

    def write(self, root: Path, folders: Iterable[bytes], target: Path) -> None:
        """Write the listing of the tree at `root`; the archive may not have said all `folders`.

        Of these, and of sparse files, what counts is what is on disk.
        """
        self._close()
        unsaid = (path for path in folders if path not in self._facts)
        for path in (*self._later, *unsaid):
            name = os.fsdecode(path)
            self._lines.append(tree_manifest.line(tree_manifest.entry(root / name, name or ".")))
        tree_manifest.keep(self._lines, target)


def _facts(member: Member) -> list[Any]:
    """Kind, owner, group, mode, content, capabilities."""
    content: str | int = ""
    if member.kind == "symbolic link":
        content = os.fsdecode(member.target)
    elif member.kind == "character device":
        content = os.makedev(*member.device)
    mode = 0o777 if member.kind == "symbolic link" else member.mode & 0o7777
    capability = member.attributes.get(CAPABILITY.encode(), b"").hex()
    return [_KINDS[member.kind], *member.owner, mode, content, capability]
