"""The entries of a tar stream, read fast: plain headers are parsed here, all others by tarfile.

A tree has 200,000 headers, which tarfile would take five seconds to read; nearly all are plain
(tar(5): a short name, octal numbers, a regular file or a directory). A reader of archives must
not mistake a damaged header for the end, as tarfile does, nor stop before the last byte.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO
from zlib import adler32

from tasks.errors import NotTrusted

BLOCK = 512
_ZEROS = bytes(BLOCK)
_EXTENDED_LIMIT = 1 << 20
# mode, uid, gid, size, mtime, checksum and type, from byte 100 on
_NUMBERS = re.compile(
    rb"([0-7]{7})[\0 ](?:[0-7]{7}[\0 ]){2}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 ([05])"
)
# headers whose data describe the entry that follows: long names and links, pax records (tar(5))
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE)

# Plain tuples, since there are 200,000 of them (a NamedTuple takes six times as long to make).
# An entry: name, mode, kind ("file", "directory" or "other"), content of a file
Entry = tuple[bytes, int, str, bytes]
# A header: name, mode, kind, size of the data that follow
_Header = tuple[bytes, int, str, int]


def entries(stream: BinaryIO, archive: str, limit: int) -> Iterator[Entry]:
    """Read every entry, in order; `limit` is the largest size of a file, in bytes.

    `stream` must return as many bytes as requested, unless it ends. Raises NotTrusted, naming
    `archive`, where the stream is not one whole archive that every tar reads alike.
    """
    read = stream.read
    block = read(BLOCK)
    while block != _ZEROS:
        name, mode, kind, size = _plain(block) or _by_tarfile(block, read, archive)
        if size > limit:
            raise NotTrusted("archive-file-too-large", archive=archive, size=size)
        length = size + -size % BLOCK
        rest = read(length + BLOCK)  # its data, padded, and the next header
        if len(rest) < length:
            raise NotTrusted("archive-truncated", archive=archive)
        block = rest[length:]
        yield name, mode, kind, rest[:size]
    while rest := read(1 << 20):
        if rest.strip(b"\0"):
            raise NotTrusted("archive-data-after-end", archive=archive)


def _plain(block: bytes) -> _Header | None:
    """Parse a plain header; None for any other, which is left to tarfile."""
    numbers = _NUMBERS.match(block, 100)
    name, zero, _ = block[:100].partition(b"\0")
    # at 345: a POSIX prefix, or GNU's further fields
    if numbers is None or not zero or len(block) < BLOCK or block[345]:
        return None
    mode, size, checksum, kind = numbers.groups()
    # The sum of all bytes, with blanks in the checksum's own place. The lower half of an
    # Adler-32 is one more than such a sum (RFC 1950, 9), and it is quick.
    total = (adler32(block) & 0xFFFF) - (adler32(block[148:156]) & 0xFFFF) + 8 * 0x20
    if (total - int(checksum, 8)) % 65521:
        return None
    if kind == b"5":  # a directory has no data, whatever its size field says
        return name, int(mode, 8), "directory", 0
    return name, int(mode, 8), "file", int(size, 8)


def _by_tarfile(block: bytes, read: Callable[[int], bytes], archive: str) -> _Header:
    """Parse any other header with tarfile, together with the extended headers before it."""
    headers = block
    try:
        while block[156:157] in _EXTENSIONS:
            size = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
            if not 0 < size <= _EXTENDED_LIMIT:
                raise NotTrusted("archive-header-too-large", archive=archive)
            headers += read(size + -size % BLOCK)
            block = read(BLOCK)
            headers += block
            if len(headers) > _EXTENDED_LIMIT:
                raise NotTrusted("archive-header-too-large", archive=archive)
        with tarfile.open(fileobj=io.BytesIO(headers), mode="r:", encoding="utf-8") as tar:
            info = tar.next()
    # tarfile does not raise TarError alone over a bad header
    except (tarfile.TarError, ValueError, OverflowError, LookupError, EOFError) as error:
        cause = str(error) or type(error).__name__
        raise NotTrusted("archive-header-damaged", archive=archive, cause=cause) from error
    if info is None:
        raise NotTrusted("archive-truncated", archive=archive)
    if info.size < 0:
        raise NotTrusted("archive-header-damaged", archive=archive, cause="negative size")
    regular = info.isreg() and not info.issparse()
    kind = "directory" if info.isdir() else "file" if regular else "other"
    name = info.name.encode("utf-8", "surrogateescape")
    return name, info.mode, kind, info.size if info.isreg() else 0
