"""The members of a tar stream, quickly: plain headers are read here, all others by tarfile.

A tree has 200,000 headers, of which tarfile would take five seconds to read; nearly all are plain
(tar(5): a short name, octal numbers, a regular file or a directory). Whoever reads an archive
must not take a damaged header for its end, as tarfile does, nor stop before its last byte.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO
from zlib import adler32

BLOCK = 512
_ZEROS = bytes(BLOCK)
_EXTENDED_LIMIT = 1 << 20
# mode, uid, gid, size, mtime, checksum and type, from byte 100 on
_NUMBERS = re.compile(
    rb"([0-7]{7})[\0 ](?:[0-7]{7}[\0 ]){2}([0-7]{11})[\0 ][0-7]{11}[\0 ]([0-7]{6})\0 ([05])"
)
# whose data are about the member that follows: long names and links, pax records (tar(5))
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE)


class BadTar(Exception):
    """Not a whole tar archive, or not one that every tar would read alike."""


def _broken(why: str) -> BadTar:
    return BadTar(f"it is not a whole tar archive ({why})")


# a member: name, mode, kind ("file", "directory" or "other"), a file's content
Entry = tuple[bytes, int, str, bytes]
# what a header says: name, mode, kind, size of the data that follow
_Header = tuple[bytes, int, str, int]


def entries(stream: BinaryIO, limit: int) -> Iterator[Entry]:
    """Every member, in order; `limit` is the largest size of a file, in bytes. Raises BadTar.

    The stream must give as many bytes as are asked for, unless it ends.
    """
    read = stream.read
    block = read(BLOCK)
    while block != _ZEROS:
        name, mode, kind, size = _plain(block) or _by_tarfile(block, read)
        if size > limit:
            raise BadTar(f"a file in it is larger than one can be ({size} bytes)")
        length = size + -size % BLOCK
        rest = read(length + BLOCK)  # its data, padded, and the next header
        if len(rest) < length:
            raise _broken("it ends in the middle of a file")
        block = rest[length:]
        yield name, mode, kind, rest[:size]
    while rest := read(1 << 20):
        if rest.strip(b"\0"):
            raise _broken("something comes after its end")


def _plain(block: bytes) -> _Header | None:
    """What a plain header says, or None for one that tarfile shall read."""
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
    if kind == b"5":  # a directory has no data, whatever its size says
        return name, int(mode, 8), "directory", 0
    return name, int(mode, 8), "file", int(size, 8)


def _by_tarfile(block: bytes, read: Callable[[int], bytes]) -> _Header:
    """The entry of any other header, with the extended headers before it, as tarfile reads it."""
    headers = block
    try:
        while block[156:157] in _EXTENSIONS:
            size = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
            if not 0 < size <= _EXTENDED_LIMIT:
                raise _broken("an extended header is larger than one can be")
            headers += read(size + -size % BLOCK)
            block = read(BLOCK)
            headers += block
            if len(headers) > _EXTENDED_LIMIT:
                raise _broken("an extended header is larger than one can be")
        with tarfile.open(fileobj=io.BytesIO(headers), mode="r:", encoding="utf-8") as tar:
            info = tar.next()
    # not all that tarfile raises over a header is a TarError
    except (tarfile.TarError, ValueError, OverflowError, LookupError, EOFError) as error:
        raise _broken(str(error) or type(error).__name__) from error
    if info is None:
        raise _broken("it ends too early")
    if info.size < 0:
        raise _broken("a file of less than no bytes")
    whole = info.isreg() and not info.issparse()
    kind = "directory" if info.isdir() else "file" if whole else "other"
    name = info.name.encode("utf-8", "surrogateescape")
    return name, info.mode, kind, info.size if info.isreg() else 0
