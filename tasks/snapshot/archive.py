"""A snapshot's archive as a stream of files, each checked before anyone sees it.

Hostile until shown otherwise: only regular files and directories, below one top directory; no
absolute path, no `..`, no `.git`, no control characters, no setuid; caps on number, size, depth
and ratio.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from tasks.errors import NotTrusted
from tasks.snapshot.tar import BadTar, entries
from tasks.system.command import started
from tasks.system.read_ahead import patient

# Three times the real tree. What freezing holds in memory for each stays below 200 MB in all.
_FILE_LIMIT = 550_000
_BYTES_LIMIT = 8 << 30
_ONE_FILE_LIMIT = 32 << 20
_RATIO_LIMIT = 200  # of unpacked to packed bytes, once there are more than
_RATIO_FREE = 64 << 20
_DEPTH_LIMIT = 32
# As many threads as there are blocks and processors, one where they would take more memory.
_UNPACK = ("xz", "-T0", "--memlimit-mt-decompress=96MiB", "-dc")
# What nearly every path looks like; all others are looked at by inner_path.
_USUAL = re.compile(rb"[\w+][\w+.,@:=-]*(?:/[\w+][\w+.,@:=-]*){1,31}")


class Member(NamedTuple):
    """One file of the tree: its path below the top directory, its bytes, whether it runs."""

    path: str
    data: bytes
    executable: bool


@contextlib.contextmanager
def members(archive: BinaryIO, name: str) -> Iterator[Iterator[Member]]:
    """Every file of an open .tar.xz, in the archive's order; `name` is what to call it.

    xz runs from the beginning of the block. Raises NotTrusted at the first bad one.
    """
    archive.seek(0)
    packed = os.fstat(archive.fileno()).st_size
    with started(
        *_UNPACK, stdin=archive, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        stream = patient(cast(BinaryIO, process.stdout))

        def files() -> Iterator[Member]:
            try:
                yield from _checked(stream, packed)
            except BadTar as error:
                raise NotTrusted(
                    f"{name} is not accepted as a tree: {error}", "try another mirror"
                ) from error
            if process.wait() != 0:
                raise NotTrusted(f"{name} is not a whole xz file", "try another mirror")

        yield files()


def _checked(stream: BinaryIO, packed: int) -> Iterator[Member]:
    count = size = 0
    allowed = min(_BYTES_LIMIT, max(_RATIO_FREE, _RATIO_LIMIT * packed))
    top: str | None = None
    for raw, mode, kind, data in entries(stream, _ONE_FILE_LIMIT):
        count, size = count + 1, size + len(data)
        if count > _FILE_LIMIT or size > allowed:
            raise BadTar("it is larger than a tree can be")
        if _USUAL.fullmatch(raw):
            first, _, path = raw.decode().partition("/")
        else:
            first, path = _split(raw)
        if first != top:
            if top is not None:
                raise BadTar(f"it has more than one top directory ({top}, {first})")
            top = first
        if mode & 0o6000:
            raise BadTar(f"{path} is setuid or setgid")
        if kind == "directory":
            continue
        if kind != "file" or not path:
            raise BadTar(f"{first}/{path} is neither a directory nor a file in one")
        yield Member(path, data, bool(mode & 0o100))


def _split(raw: bytes) -> tuple[str, str]:
    """The top directory and the path below it, of an unusual name; raises BadTar."""
    name = raw.decode("utf-8", "surrogateescape")  # surrogates are not printable: refused
    found = inner_path(name)
    if found is None:
        raise BadTar(f"the path {name[:120]!r} does not belong there")
    return found


def inner_path(name: str) -> tuple[str, str] | None:
    """The top directory and the path below it, or None where a name is not allowed.

    Of the top directory itself, the path is empty.
    """
    parts = name.rstrip("/").split("/")
    if parts[0] == ".":
        parts = parts[1:]
    if not parts or len(parts) > _DEPTH_LIMIT:
        return None
    for part in parts:
        if part in ("", ".", "..") or part.lower() in (".git", "git~1"):
            return None
        if not part.isprintable() or "\\" in part:
            return None
    return parts[0], "/".join(parts[1:])
