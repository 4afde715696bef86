"""The archive of a snapshot as a stream of files, each checked before it is passed on.

An archive is hostile until it has passed: only regular files and directories, below one top
directory; no absolute path, no `..`, no `.git`, no control characters, no setuid; limits on
number, size, depth and compression ratio.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from tasks.errors import NotTrusted
from tasks.snapshot.tar import entries
from tasks.system.command import started
from tasks.system.read_ahead import patient_reader

# Three times the real tree. What freezing holds in memory for each stays below 200 MB in all.
_FILE_LIMIT = 550_000
_BYTES_LIMIT = 8 << 30
_ONE_FILE_LIMIT = 32 << 20
_RATIO_LIMIT = 200  # of unpacked to packed bytes, beyond
_RATIO_FREE = 64 << 20
_DEPTH_LIMIT = 32
# As many threads as there are blocks and processors, one where they would take more memory.
_UNPACK = ("xz", "-T0", "--memlimit-mt-decompress=96MiB", "-dc")
# Nearly every path is like this; all others are checked by inner_path.
_USUAL = re.compile(rb"[\w+][\w+.,@:=-]*(?:/[\w+][\w+.,@:=-]*){1,31}")


class TreeFile(NamedTuple):
    """A file of the tree: its path below the top directory, its bytes, its executable bit."""

    path: str
    data: bytes
    executable: bool


@contextlib.contextmanager
def tree_files(archive: BinaryIO, name: str) -> Iterator[Iterator[TreeFile]]:
    """Read every file of an open .tar.xz, in the archive's order; `name` is for messages.

    xz runs from the beginning of the block. Raises NotTrusted at the first bad entry.
    """
    archive.seek(0)
    packed = os.fstat(archive.fileno()).st_size
    with started(
        *_UNPACK, stdin=archive, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        stream = patient_reader(cast(BinaryIO, process.stdout))

        def files() -> Iterator[TreeFile]:
            yield from _check(stream, name, packed)
            if process.wait() != 0:
                raise NotTrusted("archive-xz-incomplete", archive=name)

        yield files()


def _check(stream: BinaryIO, archive: str, packed: int) -> Iterator[TreeFile]:
    count = size = 0
    limit = min(_BYTES_LIMIT, max(_RATIO_FREE, _RATIO_LIMIT * packed))
    top: str | None = None
    for raw, mode, kind, data in entries(stream, archive, _ONE_FILE_LIMIT):
        count, size = count + 1, size + len(data)
        if count > _FILE_LIMIT or size > limit:
            raise NotTrusted("archive-too-large", archive=archive)
        if _USUAL.fullmatch(raw):
            first, _, path = raw.decode().partition("/")
        else:
            first, path = _split(raw, archive)
        if first != top:
            if top is not None:
                raise NotTrusted("archive-two-tops", archive=archive, names=[top, first])
            top = first
        if mode & 0o6000:
            raise NotTrusted("archive-setuid", archive=archive, path=path)
        if kind == "directory":
            continue
        if kind != "file" or not path:
            raise NotTrusted("archive-not-a-file", archive=archive, path=f"{first}/{path}")
        yield TreeFile(path, data, bool(mode & 0o100))


def _split(raw: bytes, archive: str) -> tuple[str, str]:
    """Split an unusual name into the top directory and the path below it; raises NotTrusted."""
    name = raw.decode("utf-8", "surrogateescape")  # surrogates are not printable: refused
    parts = inner_path(name)
    if parts is None:
        raise NotTrusted("archive-bad-path", archive=archive, path=name[:120])
    return parts


def inner_path(name: str) -> tuple[str, str] | None:
    """Split a name into the top directory and the path below it; None where it is not allowed.

    For the top directory itself, the path is empty.
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
