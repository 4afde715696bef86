"""Contents of files as digests, without the times that a build leaves in some formats.

A normaliser replaces bytes that only say when a file was built. Everything else is part of the
digest, and so is a file whose content does not match its format. docs/builds.md lists them all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import IO

_CHUNK = 1 << 20
Sink = Callable[[bytes], object]
# ar(5): name, date, uid, gid, mode, size, end
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = re.compile(rb"(.{16})[0-9 ]{24}(.{8})([0-9]+) *`\n", re.DOTALL)
# RFC 1952, 2.3: ID, method, flags, time, extra flags, system
_GZIP = re.compile(rb"(\x1f\x8b\x08.).{4}", re.DOTALL)


def digest(path: str, stream: IO[bytes]) -> str:
    """The SHA-256 of a file's content, in hex, after the normaliser of its name."""
    sha256 = hashlib.sha256()
    copy = next((each for suffix, each in _BY_SUFFIX.items() if path.endswith(suffix)), _plain)
    copy(stream, sha256.update)
    return sha256.hexdigest()


def _plain(stream: IO[bytes], sink: Sink) -> None:
    while chunk := stream.read(_CHUNK):
        sink(chunk)


def _gzip(stream: IO[bytes], sink: Sink) -> None:
    """Copy a gzip file, with 0 (none) as its time."""
    sink(_GZIP.sub(rb"\1\0\0\0\0", stream.read(8), count=1))
    _plain(stream, sink)


def _ar(stream: IO[bytes], sink: Sink) -> None:
    """Copy a static library, with 0 as the date and the owner of its members.

    A linker reads neither; `ar D` writes the same.
    """
    magic = stream.read(len(_AR_MAGIC))
    sink(magic)
    while magic == _AR_MAGIC:
        header = stream.read(60)
        match = _AR_HEADER.fullmatch(header)
        if match is None:
            sink(header)
            break
        sink(match[1] + b"0".ljust(24) + header[40:])
        _copy(stream, sink, int(match[3]) + int(match[3]) % 2)  # members start at even places
    _plain(stream, sink)


def _copy(stream: IO[bytes], sink: Sink, count: int) -> None:
    while count and (chunk := stream.read(min(count, _CHUNK))):
        sink(chunk)
        count -= len(chunk)


_BY_SUFFIX: dict[str, Callable[[IO[bytes], Sink], None]] = {".a": _ar, ".gz": _gzip, ".tgz": _gzip}


class Bytecode:
    """The content of a .pyc file: its first 16 bytes, and the digest of the others (PEP 552).

    The header has the time of the source, which Python compares with that of the source's file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.header = stream.read(16)
        sha256 = hashlib.sha256()
        _plain(stream, sha256.update)
        self._rest = sha256.hexdigest()

    def content(self, source_time: int | None) -> str:
        """The content as one text, without a time that is the one of its source.

        Another time is kept: Python would not use that file. `source_time` is in epoch seconds;
        None where the image has no source.
        """
        header, time = self.header, (source_time or 0) % (1 << 32)
        if source_time is not None and header[4:12] == bytes(4) + time.to_bytes(4, "little"):
            return f"{header[:4].hex()} of its source {header[12:].hex()} {self._rest}"
        return f"{header.hex()} {self._rest}"


def source_of(path: str) -> str:
    """The source of a .pyc file (PEP 3147)."""
    folder, _, name = path.rpartition("/")
    if folder.endswith("/__pycache__"):
        folder = folder.removesuffix("/__pycache__")
    return f"{folder}/{name.partition('.')[0]}.py"
