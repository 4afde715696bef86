"""A snapshot's archive as a stream of files, each checked before anyone sees it.

Hostile until shown otherwise: only regular files and directories, below one top directory; no
absolute path, no `..`, no `.git`, no control characters, no setuid; caps on number, size, depth.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tasks.errors import NotTrusted
from tasks.system.command import started

_FILE_LIMIT = 2_000_000
_BYTES_LIMIT = 8 << 30
_ONE_FILE_LIMIT = 256 << 20
_DEPTH_LIMIT = 32


@dataclass(frozen=True)
class Member:
    """One file of the tree: its path below the top directory, its bytes, whether it runs."""

    path: str
    data: bytes
    executable: bool


def members(archive: Path) -> Iterator[Member]:
    """Every file of a .tar.xz, in the archive's order; raises NotTrusted at the first bad one."""
    with (
        archive.open("rb") as packed,
        started("xz", "-T0", "-dc", stdin=packed, stdout=subprocess.PIPE) as process,
    ):
        yield from _checked(cast(IO[bytes], process.stdout), archive.name)
        if process.wait() != 0:
            raise NotTrusted(f"{archive.name} is not a whole xz file")


def _checked(stream: IO[bytes], name: str) -> Iterator[Member]:
    def refuse(why: str) -> NotTrusted:
        return NotTrusted(f"{name} is not accepted as a tree: {why}", "try another mirror")

    count = size = 0
    tops: set[str] = set()
    whole = _Watched(stream)
    try:
        # names that are not UTF-8 come as surrogates, which are refused below
        with tarfile.open(fileobj=cast(IO[bytes], whole), mode="r|", encoding="utf-8") as tar:
            for entry in tar:
                count, size = count + 1, size + entry.size
                if count > _FILE_LIMIT or size > _BYTES_LIMIT:
                    raise refuse("it is larger than a tree can be")
                if not 0 <= entry.size <= _ONE_FILE_LIMIT:
                    raise refuse("a file in it is larger than one can be")
                path = inner_path(entry.name, tops)
                if path is None:
                    raise refuse(f"the path {entry.name[:120]!r} does not belong there")
                if len(tops) > 1:
                    raise refuse(f"it has more than one top directory ({', '.join(sorted(tops))})")
                if entry.mode & 0o6000:
                    raise refuse(f"{path} is setuid or setgid")
                if entry.isdir():
                    continue
                if not entry.isreg() or not path:
                    raise refuse(f"{entry.name!r} is neither a directory nor a file in one")
                content = cast(IO[bytes], tar.extractfile(entry))
                yield Member(path, content.read(), bool(entry.mode & 0o100))
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header
            if not whole.ends_well(tar.offset):
                raise refuse("it is not a whole tar archive (no end, or more after it)")
    # not all that tarfile raises over a header is a TarError
    except (tarfile.TarError, ValueError, OverflowError, LookupError) as error:
        raise refuse(f"it is not a whole tar archive ({error})") from error


class _Watched:
    """A stream that knows how it ended: tarfile takes a damaged header for the end, in silence,
    and does not read on to what comes after the end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._last, self._start = b"", 0

    def read(self, size: int) -> bytes:
        """The next bytes, remembered until the next call."""
        self._start += len(self._last)
        self._last = self._stream.read(size)
        return self._last

    def ends_well(self, offset: int) -> bool:
        """Whether a block of zeros is at `offset`, and nothing but zeros after it; reads them."""
        rest = self._last[offset - self._start :]
        ends = offset >= self._start and len(rest) >= tarfile.BLOCKSIZE
        while ends and rest:
            ends = not rest.strip(b"\0")
            rest = self._stream.read(1 << 20)
        return ends


def inner_path(name: str, tops: set[str]) -> str | None:
    """The path below the top directory ("" for the top itself), or None if it is not allowed.

    Adds the top directory's name to `tops`.
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
    tops.add(parts[0])
    return "/".join(parts[1:])
