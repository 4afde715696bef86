"""Search for a secret in all files below a folder, also inside archives."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import zstandard


def leaks(folder: Path, secret: str) -> list[str]:
    """The places of the secret, plain or in base64 (RFC 7617), by path below the folder."""
    needles = [secret.encode(), *_in_base64(secret)]
    places = set()
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        name = str(path.relative_to(folder))
        for inside, data in [("", name.encode()), *_unpack(path.name, path.read_bytes())]:
            if any(needle in data for needle in needles):
                places.add(f"{name}{inside}")
    return sorted(places)


def _in_base64(secret: str) -> list[bytes]:
    """The base64 of its middle, at each offset within a longer text."""
    return [base64.b64encode(b"x" * shift + secret.encode())[4:-4] for shift in range(3)]


def _unpack(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file, and those of each file packed in it."""
    yield "", data
    with suppress(OSError, EOFError, ValueError, zlib.error, zstandard.ZstdError):
        if name.endswith((".tar", ".tar.zst", ".tar.gz")):
            yield from _members(data)
        elif name.endswith(".zst"):
            yield from _unpack(name.removesuffix(".zst"), _plain(data))
        elif name.endswith(".bz2"):
            yield from _unpack(name.removesuffix(".bz2"), bz2.decompress(data))
        elif name.endswith(".gz"):
            yield from _unpack(name.removesuffix(".gz"), gzip.decompress(data))
        elif len(name) == 38:  # perhaps a loose object of git
            yield "", zlib.decompress(data)


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:4] == b"\x28\xb5\x2f\xfd":
        data = _plain(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream:
                base = member.name.rpartition("/")[2]
                for inside, inner in _unpack(base, stream.read()):
                    yield f" {member.name}{inside}", inner


def _plain(data: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
    return bytes(reader.read())


def database_dump(database: Path) -> str:
    """All that doit remembers, as text."""
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump())
