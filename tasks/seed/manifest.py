"""The listing of a seed for `doit fsck`, written while its archive is unpacked.

Reading a gigabyte of files again for it would take half as long as unpacking them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tasks.seed.policy import CAPABILITY, inner_path
from tasks.seed.tar_stream import Consumer, Kind, TarEntry
from tasks.system import tree_manifest

_CAPABILITY = CAPABILITY.encode()
_TYPES: dict[Kind, int] = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symbolic link": stat.S_IFLNK,
    "character device": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
}


class _Facts(NamedTuple):
    """The facts of one entry in a listing, in the order of system.tree_manifest.

    `content` is the SHA-256 of a file, the target of a link, the number of a device.
    """

    type: int
    owner: int
    group: int
    mode: int
    content: str | int
    capability: str


class ManifestWriter:
    """Collects the lines of a listing (system.tree_manifest) from entries that were admitted."""

    def __init__(self) -> None:
        self._facts: dict[bytes, _Facts | None] = {}  # None: to be read from disk
        self._lines: list[str] = []  # formatted at once, so that little is left to do at the end
        self._unread: list[bytes] = []
        self._open: tuple[bytes, TarEntry, Any] | None = None  # the file being hashed, its hash

    def add(self, path: bytes, entry: TarEntry) -> Consumer | None:
        """Add one entry; its data must be passed to the consumer that is returned."""
        self._close_file()
        if entry.kind == "hard link":
            self._add(path, self._facts[inner_path(entry.target)])
        elif entry.kind != "file":
            self._add(path, _facts(entry, _content(entry)))
        elif entry.sparse:
            self._add(path, None)
        else:
            digest = hashlib.sha256()
            self._open = path, entry, digest
            return digest.update
        return None

    def _close_file(self) -> None:
        if self._open is not None:
            path, entry, digest = self._open
            self._open = None
            self._add(path, _facts(entry, digest.hexdigest()))

    def _add(self, path: bytes, facts: _Facts | None) -> None:
        self._facts[path] = facts
        if facts is None:
            self._unread.append(path)
        else:
            self._lines.append(tree_manifest.line([os.fsdecode(path) or ".", *facts]))

    def write(self, root: Path, folders: Iterable[bytes], target: Path) -> None:
        """Write the listing of the tree at `root` to `target`.

        Sparse files are read from disk, and so are those of `folders` that have no entry.
        """
        self._close_file()
        without_entry = (path for path in folders if path not in self._facts)
        for path in (*self._unread, *without_entry):
            name = os.fsdecode(path)
            self._lines.append(
                tree_manifest.line(
                    tree_manifest.entry(root / name, name or ".", tree_manifest.CAPABILITIES)
                )
            )
        tree_manifest.write_lines(self._lines, target)


def _content(entry: TarEntry) -> str | int:
    if entry.kind == "symbolic link":
        return os.fsdecode(entry.target)
    return os.makedev(*entry.device) if entry.kind == "character device" else ""


def _facts(entry: TarEntry, content: str | int) -> _Facts:
    mode = 0o777 if entry.kind == "symbolic link" else entry.mode & 0o7777
    capability = entry.attributes.get(_CAPABILITY, b"").hex()
    return _Facts(_TYPES[entry.kind], *entry.owner, mode, content, capability)
