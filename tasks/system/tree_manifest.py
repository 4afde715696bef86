"""Listings: what every file of a tree must be, written once, to hold the tree against later.

A listing is text: the SHA-256 of all that follows, then one JSON list per entry, in the order of
the walk. It keeps content, kind, owner, mode, links and capabilities; no times of folders and no
inode numbers, so that a copy of the tree (cp -a) still fits.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.system.files import digests_of, write_atomic

_CAPABILITY = "security.capability"
_NAMES = ("kind", "owner", "group", "mode", "content", "capabilities")
Seen = Callable[[int], None]  # told the bytes of each file that was read


class Damaged(BinmillError):
    """A listing cannot be used itself."""


def write(root: Path, target: Path) -> None:
    """Write the listing of a tree, in one step."""
    keep(map(line, _entries(root, lambda _size: None)), target)


def line(entry: list[Any]) -> str:
    """The line of an entry in a listing, as of the function of that name."""
    return json.dumps(entry) + "\n"


def keep(lines: Iterable[str], target: Path) -> None:
    """Write the listing of a tree whose lines are known already."""
    text = "".join(lines)
    write_atomic(target, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", mode=0o600)


def differences(root: Path, listing: Path, seen: Seen = lambda _size: None) -> Iterator[str]:
    """The differences between a tree and its listing, a line each, in the order of the walk.

    Raises Damaged where the listing is missing or not what was written.
    """
    wanted = _read(listing)
    for path, *found in _entries(root, seen):
        known = wanted.pop(path, None)
        if known is None:
            yield f"/{path} does not belong there"
        elif wrong := [name for name, a, b in zip(_NAMES, known, found, strict=True) if a != b]:
            yield f"/{path}: other {', '.join(wrong)}"
    for path in wanted:
        yield f"/{path} is missing"


def texts(root: Path) -> dict[str, str]:
    """Every plain file of a small tree by its path below it; bytes that are no UTF-8 are kept."""
    return {
        str(path.relative_to(root)): path.read_bytes().decode("utf-8", "surrogateescape")
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _read(listing: Path) -> dict[str, list[Any]]:
    try:
        head, _, lines = listing.read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise Damaged("listing-missing", name=listing.name) from None
    if head != hashlib.sha256(lines).hexdigest().encode():
        raise Damaged("listing-damaged", name=listing.name)
    return {path: found for path, *found in map(json.loads, lines.splitlines())}


def _entries(root: Path, seen: Seen) -> Iterator[list[Any]]:
    """Path, kind, owner, group, mode, content (or where a link leads, or the device), capability.

    Names that are no UTF-8 become lone surrogates, which JSON carries as they are.
    """
    yield entry(root, ".", seen)
    for place, folders, names in os.walk(root, onerror=_raise):
        folders.sort()
        for name in sorted((*folders, *names)):
            path = Path(place, name)
            yield entry(path, str(path.relative_to(root)), seen)


def entry(path: Path, name: str, seen: Seen = lambda _size: None) -> list[Any]:
    """The facts of a file in a listing: those of _entries, under that name."""
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    content: str | int = ""
    if kind == stat.S_IFREG:
        content = _digest(path)
        seen(status.st_size)
    elif kind == stat.S_IFLNK:
        content = os.readlink(path)  # noqa: PTH115 - as it is written, not as a path
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        content = status.st_rdev
    return [
        name,
        kind,
        status.st_uid,
        status.st_gid,
        stat.S_IMODE(status.st_mode),
        content,
        _capability(path) if kind == stat.S_IFREG else "",
    ]


def _digest(path: Path) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:  # noqa: PTH123
            return digests_of(stream, "sha256")["sha256"]
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return "cannot be read"  # a bad block is damage like any other


def _capability(path: Path) -> str:
    try:
        return os.getxattr(path, _CAPABILITY, follow_symlinks=False).hex()
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return ""
        raise


def _raise(error: OSError) -> None:
    raise error
