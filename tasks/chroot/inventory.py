"""What each file of a seed must be, taken down while its archive goes by: `doit fsck` reads it.

To read a gigabyte of files again for that would take as long as half of the unpacking.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.chroot.admission import CAPABILITY, inner_path
from tasks.chroot.members import Look, Member
from tasks.system import listing

_KINDS = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symbolic link": stat.S_IFLNK,
    "character device": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
}


class Inventory:
    """Gathers the entries of a listing (tasks.system.listing) from members that were let in."""

    def __init__(self) -> None:
        self._facts: dict[bytes, list[Any]] = {}  # a hard link has the same ones as its file
        self._sparse: list[bytes] = []
        self._open: tuple[list[Any], Any] | None = None  # whose data go by, and their hash

    def add(self, path: bytes, member: Member) -> Look | None:
        """Take one more down; its data are to be given to what is returned."""
        self._close()
        if member.kind == "hard link":
            self._facts[path] = self._facts[inner_path(member.target)]
            return None
        facts = self._facts[path] = _facts(member)
        if member.kind != "file":
            return None
        if member.sparse:
            self._sparse.append(path)
            return None
        digest = hashlib.sha256()
        self._open = facts, digest
        return digest.update

    def _close(self) -> None:
        if self._open is not None:
            facts, digest = self._open
            facts[4] = digest.hexdigest()
            self._open = None

    def write(self, root: Path, folders: Iterable[bytes], target: Path) -> None:
        """Write the listing of the tree at `root`; the archive may not have said all `folders`.

        Of these, and of sparse files, what counts is what is on disk.
        """
        self._close()
        for path in self._sparse:
            self._facts[path][4] = listing.entry(root / os.fsdecode(path), "")[5]
        for path in folders:
            if path not in self._facts:
                self._facts[path] = listing.entry(root / os.fsdecode(path), "")[1:]
        listing.keep(self._entries(), target)

    def _entries(self) -> Iterator[list[Any]]:
        for path, facts in self._facts.items():
            yield [os.fsdecode(path) or ".", *facts]


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
