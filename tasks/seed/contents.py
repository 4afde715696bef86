"""CONTENTS.gz, a stage's list of files by its makers, compared with the unpacked tree.

Its lines are those of `tar --list --verbose`: mode, owner/group, size or device, date, time, name.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks.errors import BinmillError
from tasks.seed.policy import inner_path
from tasks.seed.tar_stream import ArchiveRefused, escaped
from tasks.system.notes import note

_LIMIT = 512 << 20  # bytes, unpacked
_LINE = re.compile(
    rb"([-hlcbdps])([-rwxsStT]{9})[*+.@]? +([^\s/]+)/(\S+) +(?:(\d+)|(\d+), *(\d+)) "
    rb"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)? (.+)"
)
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_LETTERS = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))


class ListedEntry(NamedTuple):
    """One line: `kind` and `mode` are letters as of ls(1); `owner` is None where it is a name."""

    path: bytes
    kind: str
    mode: str
    owner: tuple[int, int] | None
    size: int
    device: tuple[int, int] | None
    target: bytes | None  # of a symbolic link


def compare(root: Path, listing: bytes, entries: int, archive: str) -> None:
    """Raise BinmillError where the tree below `root` differs from its listing.

    `entries` is the number of entries in the archive. A listing that cannot be read is skipped
    with a note: no specification says what it looks like.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(listing)) as stream:
            text = stream.read(_LIMIT)
        listed = [parse_line(line) for line in text.removesuffix(b"\n").split(b"\n")]
    except (ValueError, EOFError, OSError, ArchiveRefused) as error:
        note("stage-contents-unreadable", archive=archive, cause=str(error))
        return
    top = os.fsencode(root) + b"/"
    differences = [
        f"/{escaped(entry.path)}: {difference}"
        for entry in listed
        for difference in _differences(top + entry.path, entry)
    ]
    if differences:
        raise BinmillError("stage-differs-from-contents", archive=archive, differences=differences)
    if len(listed) != entries:
        raise BinmillError(
            "stage-contents-entry-count", archive=archive, listed=len(listed), unpacked=entries
        )


def parse_line(line: bytes) -> ListedEntry:
    """Parse one line; raises ValueError, or ArchiveRefused for an impossible path."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"unknown line format: {escaped(line[:60])}")
    kind, mode, user, group, size, major, minor, name = match.groups()
    target = None
    if kind == b"l":
        name, _, target = name.partition(b" -> ")
        target = _unescape(target)
    elif kind == b"h":
        name = name.partition(b" link to ")[0]
    return ListedEntry(
        path=inner_path(_unescape(name)),
        kind=kind.decode(),
        mode=mode.decode(),
        owner=(int(user), int(group)) if user.isdigit() and group.isdigit() else None,
        size=int(size or 0),
        device=(int(major), int(minor)) if major else None,
        target=target,
    )


def _unescape(name: bytes) -> bytes:
    """Undo the escapes that tar prints (--quoting-style=escape)."""
    if b"\\" not in name:
        return name
    return _ESCAPED.sub(
        lambda m: bytes([int(m[1], 8) if len(m[1]) == 3 else _LETTERS.get(m[1][0], m[1][0])]), name
    )


def _differences(file: bytes, entry: ListedEntry) -> Iterator[str]:
    try:
        status = os.lstat(file)
    except OSError:
        yield "missing"
        return
    mode = stat.filemode(status.st_mode)
    if mode[1:] != entry.mode or (entry.kind != "h" and mode[0] != entry.kind):
        yield f"mode {mode}, listed {entry.kind}{entry.mode}"
    owner = status.st_uid, status.st_gid
    if entry.owner not in (None, owner):
        yield f"owner {owner}, listed {entry.owner}"
    if entry.kind == "-" and entry.size != status.st_size:
        yield f"{status.st_size} bytes, listed {entry.size}"
    device = os.major(status.st_rdev), os.minor(status.st_rdev)
    if entry.device not in (None, device):
        yield f"device {device}, listed {entry.device}"
    if entry.target is not None and stat.S_ISLNK(status.st_mode):
        target = os.readlink(file)  # noqa: PTH115 - bytes: any name
        if target != entry.target:
            yield f"link to {escaped(target)}, listed {escaped(entry.target)}"
