"""CONTENTS.gz: what a stage's makers list as its content, held against what was unpacked.

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
from tasks.seed.tar_stream import BadTar, shown
from tasks.system.terminal import say

_LIMIT = 512 << 20  # bytes, unpacked
_LINE = re.compile(
    rb"([-hlcbdps])([-rwxsStT]{9})[*+.@]? +([^\s/]+)/(\S+) +(?:(\d+)|(\d+), *(\d+)) "
    rb"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)? (.+)"
)
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_LETTERS = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))


class _Listed(NamedTuple):
    """One entry: `kind` and `mode` are letters as of ls(1); `owner` None is one by name."""

    path: bytes
    kind: str
    mode: str
    owner: tuple[int, int] | None
    size: int
    device: tuple[int, int] | None
    target: bytes | None  # of a symbolic link


def check(root: Path, listing: bytes, entries: int, archive: str) -> None:
    """Hold the tree below `root` against its listing; raises BinmillError where they differ.

    `entries` is how many the archive had. A listing that cannot be read is passed over, and that
    is said: its form is nobody's promise.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(listing)) as stream:
            text = stream.read(_LIMIT)
        listed = [_parsed(line) for line in text.removesuffix(b"\n").split(b"\n")]
    except (ValueError, EOFError, OSError, BadTar) as odd:
        say(f"  the CONTENTS of {archive} cannot be read ({odd}): the tree was not held against it")
        return
    top = os.fsencode(root) + b"/"
    wrong = [
        f"/{shown(one.path)[1:-1]} {told}"
        for one in listed
        for told in _differences(top + one.path, one)
    ]
    if len(listed) != entries:
        wrong.append(f"it lists {len(listed)} entries, the archive has {entries}")
    if wrong:
        raise BinmillError(
            f"{archive} was not unpacked as its CONTENTS lists it ({len(wrong)} differences): "
            f"{wrong[0]}",
            "does the file system of state/ keep owners, modes and devices? Is the listing wrong, "
            "take `contents` and `contents_sha512` of that seed out of config.lock",
        )


def _parsed(line: bytes) -> _Listed:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"a line of an unknown form: {shown(line[:60])}")
    kind, mode, user, group, size, major, minor, name = found.groups()
    target = None
    if kind == b"l":
        name, _, target = name.partition(b" -> ")
        target = _plain(target)
    elif kind == b"h":
        name = name.partition(b" link to ")[0]
    return _Listed(
        path=inner_path(_plain(name)),
        kind=kind.decode(),
        mode=mode.decode(),
        owner=(int(user), int(group)) if user.isdigit() and group.isdigit() else None,
        size=int(size or 0),
        device=(int(major), int(minor)) if major else None,
        target=target,
    )


def _plain(name: bytes) -> bytes:
    """A name without the escapes that tar prints (--quoting-style=escape)."""
    if b"\\" not in name:
        return name
    return _ESCAPED.sub(
        lambda m: bytes([int(m[1], 8) if len(m[1]) == 3 else _LETTERS.get(m[1][0], m[1][0])]), name
    )


def _differences(file: bytes, one: _Listed) -> Iterator[str]:
    """How an entry on disk differs from the listed one."""
    try:
        status = os.lstat(file)
    except OSError:
        yield "is not there"
        return
    mode = stat.filemode(status.st_mode)
    if mode[1:] != one.mode or (one.kind != "h" and mode[0] != one.kind):
        yield f"is {mode}, listed is {one.kind}{one.mode}"
    if one.owner is not None and one.owner != (status.st_uid, status.st_gid):
        yield f"belongs to {status.st_uid}/{status.st_gid}, listed is {one.owner}"
    if one.kind == "-" and one.size != status.st_size:
        yield f"has {status.st_size} bytes, listed are {one.size}"
    if one.device and one.device != (os.major(status.st_rdev), os.minor(status.st_rdev)):
        yield f"is another device than {one.device}"
    # bytes: any name
    if one.target is not None and os.readlink(file) != one.target:  # noqa: PTH115
        yield "leads elsewhere than is listed"
