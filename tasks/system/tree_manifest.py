"""Listings: the content and attributes of every file of a tree, written once, to verify it later.

A listing is text: the SHA-256 of all that follows, then one JSON list per entry, in the order of
the walk. It has content, kind, owner, mode, links and those extended attributes that the caller
chooses; no times of folders and no inode numbers, so that a copy of the tree (cp -a) matches, too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.system.files import digests_of, write_atomic

_CAPABILITY = "security.capability"
# Which attributes a listing has. overlayfs writes notes about what it has mounted in its own.
CAPABILITIES = re.compile(re.escape(_CAPABILITY))
ATTRIBUTES = re.compile(
    rf"{CAPABILITIES.pattern}|user\..*|trusted\.(?!overlay\.).*|trusted\.overlay\.opaque"
)
_NAMES = ("kind", "owner", "group", "mode", "content", "capabilities or attributes")
OnRead = Callable[[int], None]  # called with the size of each file that was read


class Damaged(BinmillError):
    """The listing itself is missing or damaged."""


def write(root: Path, target: Path) -> None:
    """Write the listing of a tree, in one step."""
    write_lines(map(line, _entries(root, ATTRIBUTES, lambda _size: None)), target)


def line(entry: list[Any]) -> str:
    """The line of an entry in a listing, as of the function of that name."""
    return json.dumps(entry) + "\n"


def write_lines(lines: Iterable[str], target: Path) -> None:
    """Write a listing from its lines."""
    text = "".join(lines)
    write_atomic(target, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", mode=0o600)


def differences(
    root: Path,
    listing: Path,
    on_read: OnRead = lambda _size: None,
    *,
    chosen: re.Pattern[str] = ATTRIBUTES,
) -> Iterator[str]:
    """The differences between a tree and its listing, a line each, in the order of the walk.

    `chosen` are the attributes that the listing has. Raises Damaged where the listing is missing
    or was modified.
    """
    entries = _read(listing)
    for path, *actual in _entries(root, chosen, on_read):
        expected = entries.pop(path, None)
        if expected is None:
            yield f"/{path} does not belong there"
        elif wrong := [name for name, a, b in zip(_NAMES, expected, actual, strict=True) if a != b]:
            yield f"/{path}: other {', '.join(wrong)}"
    for path in entries:
        yield f"/{path} is missing"


def texts(root: Path) -> dict[str, str]:
    """Read every plain file of a small tree, by path; bytes that are no UTF-8 are kept."""
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
    return {path: facts for path, *facts in map(json.loads, lines.splitlines())}


def _entries(root: Path, chosen: re.Pattern[str], on_read: OnRead) -> Iterator[list[Any]]:
    """Yield path, kind, owner, group, mode, content (or target, or device) and capabilities.

    Names that are no UTF-8 become lone surrogates, which JSON carries as they are.
    """
    yield entry(root, ".", chosen, on_read)
    for place, folders, names in os.walk(root, onerror=_raise):
        folders.sort()
        for name in sorted((*folders, *names)):
            path = Path(place, name)
            yield entry(path, str(path.relative_to(root)), chosen, on_read)


def entry(
    path: Path, name: str, chosen: re.Pattern[str], on_read: OnRead = lambda _size: None
) -> list[Any]:
    """The facts of a file in a listing: those of _entries, under that name."""
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    content: str | int = ""
    if kind == stat.S_IFREG:
        content = _digest(path)
        on_read(status.st_size)
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
        _attributes(path, chosen),
    ]


def _digest(path: Path) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:  # noqa: PTH123
            return digests_of(stream, "sha256")["sha256"]
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return "cannot be read"  # a bad block is damage like any other


def _attributes(path: Path, chosen: re.Pattern[str]) -> str | dict[str, str]:
    """The capabilities of a file, in hex; where it has other attributes as well, all by name."""
    try:
        values = {
            name: os.getxattr(path, name, follow_symlinks=False).hex()
            for name in sorted(os.listxattr(path, follow_symlinks=False))
            if chosen.fullmatch(name)
        }
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return ""
        raise
    return values if values.keys() - {_CAPABILITY} else values.get(_CAPABILITY, "")


def _raise(error: OSError) -> None:
    raise error
