"""The entries of a tar stream: each one is checked before GNU tar receives its first byte.

Headers are read by the rules of GNU tar 1.34 (tar(5); its src/list.c and src/xheader.c). A stream
is refused where GNU tar, or another tar, could read something else: so tar writes what was checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO, Literal, NamedTuple, Protocol
from zlib import adler32

from tasks.errors import BinmillError
from tasks.messages import Field

BLOCK = 512
_ZEROS = bytes(BLOCK)
_CHUNK = 1 << 20
_EXTENDED_LIMIT = 1 << 20  # bytes of an extended header; an extended attribute has 64 KiB at most
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
# mode, uid, gid, size, mtime and checksum, from byte 100 on, as GNU tar writes them
_NUMBERS = re.compile(rb"([0-7]{7})\0([0-7]{7})\0([0-7]{7})\0([0-7]{11})\0[0-7]{11}\0([0-7]{6})\0 ")
# Nearly all extended headers hold times and nothing else; their lengths need no check then.
_TIMES = re.compile(rb"(?:[0-9]+ [acm]time=-?[0-9]+(?:\.[0-9]+)?\n)+")
_NOTHING: dict[bytes, bytes] = {}

Kind = Literal[
    "file", "hard link", "symbolic link", "character device", "block device", "directory", "fifo"
]
_KINDS: dict[bytes, Kind] = {
    b"\0": "file",
    b"0": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "fifo",
    b"S": "file",  # GNU's old way to store a sparse one
}
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL)
# Allowed in an extended header: all that tar obeys on extraction, except for dumps and volumes.
_KEYWORDS = frozenset(
    b"atime ctime mtime gid gname uid uname path linkpath size comment charset hdrcharset "
    b"SCHILY.acl.access SCHILY.acl.default RHT.security.selinux".split()
)
_KEYWORD_PREFIXES = (b"SCHILY.xattr.", b"GNU.sparse.", b"LIBARCHIVE.")
_NAMES = (b"path", b"linkpath", b"GNU.sparse.name")
_XATTR = b"SCHILY.xattr."


class ArchiveRefused(BinmillError):
    """The archive must not be unpacked: it is no complete tar archive, or no acceptable stage.

    `message` completes the sentence "ARCHIVE is not accepted as a stage: ...". Fields of bytes
    (names in the archive) are escaped.
    """

    def __init__(self, code: str, /, **fields: Field | bytes) -> None:
        plain = {n: escaped(v) if isinstance(v, bytes) else v for n, v in fields.items()}
        super().__init__(code, **plain)


class TarEntry(NamedTuple):  # a frozen dataclass takes three times as long to make
    """One entry of an archive; `size` is that of its data in the archive, in bytes.

    `name` and `target` (of links) are as they stand in the header; `owner` is user and group,
    `device` major and minor number. A `sparse` file reads differently from its data in the archive.
    """

    name: bytes
    kind: Kind
    mode: int
    size: int
    owner: tuple[int, int] = (0, 0)
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    attributes: dict[bytes, bytes] = {}  # noqa: RUF012 - never changed
    sparse: bool = False
    has_acl: bool = False


# Receives the data of an entry, piece by piece: the `update` of a hash, say.
Consumer = Callable[[memoryview], object]


class Source(Protocol):
    """An archive: `read` may return fewer bytes than requested, and none only at its end."""

    def read(self, count: int, /) -> bytes: ...


def copy_checked(
    source: Source, sink: BinaryIO, check: Callable[[TarEntry], Consumer | None]
) -> None:
    """Copy a whole archive, calling `check` for each entry before its first byte is written.

    The consumer that `check` returns receives the entry's data. Raises ArchiveRefused, and
    whatever `check` raises.
    """
    stream = _GuardedCopy(source.read, sink.write)
    while (block := stream.look(BLOCK)) != _ZEROS:
        entry = _next_entry(block, stream.look)
        stream.release(entry.size, check(entry))
        stream.release(-entry.size % BLOCK)
    stream.release(0)
    while rest := stream.rest():
        if rest.strip(b"\0"):
            raise ArchiveRefused("tar-data-after-end")
        sink.write(rest)


class _GuardedCopy:
    """Copy a stream; bytes that `look` returned are written only after the next `release`."""

    def __init__(self, read: Callable[[int], bytes], write: Callable[[memoryview], int]) -> None:
        self._read, self._write = read, write
        self._buffer = b""
        # positions in the buffer: up to where bytes are written, may be written, have been read
        self._written = self._released = self._position = 0

    def look(self, count: int) -> bytes:
        """Return the next bytes without writing them."""
        if len(self._buffer) - self._position < count:
            self._write_until(self._released)
            parts = [self._buffer[self._released :]]
            self._position -= self._released
            missing = self._position + count - len(parts[0])
            while missing > 0:
                parts.append(self._more())
                missing -= len(parts[-1])
            self._buffer, self._written, self._released = b"".join(parts), 0, 0
        data = self._buffer[self._position : self._position + count]
        self._position += count
        return data

    def release(self, count: int, consumer: Consumer | None = None) -> None:
        """Let all bytes read so far be written, and `count` more, which `consumer` receives."""
        start, end = self._position, self._position + count
        while end > len(self._buffer):
            if consumer:
                consumer(memoryview(self._buffer)[start:])
            self._write_until(len(self._buffer))
            start, end = 0, end - len(self._buffer)
            self._buffer, self._written = self._more(), 0
        if consumer:
            consumer(memoryview(self._buffer)[start:end])
        self._released = self._position = end

    def rest(self) -> bytes:
        """Return the next piece after all that was released; b"" at the end of the stream."""
        self._write_until(self._position)
        data = self._buffer[self._position :]
        self._buffer, self._written, self._position = b"", 0, 0
        return data or self._read(_CHUNK)

    def _write_until(self, end: int) -> None:
        self._write(memoryview(self._buffer)[self._written : end])
        self._written = end

    def _more(self) -> bytes:
        data = self._read(_CHUNK)
        if not data:
            raise ArchiveRefused("tar-truncated")
        return data


def _next_entry(block: bytes, look: Callable[[int], bytes]) -> TarEntry:
    """Read all the blocks that describe the next entry; `block` is the first of them."""
    pax: dict[bytes, bytes] | None = None
    long: dict[bytes, bytes] = {}
    total = 0
    header = _header(block)
    while header.type in _EXTENSIONS:
        size, kind = header.size, header.type
        total += size
        if not 0 < size <= _EXTENDED_LIMIT or total > _EXTENDED_LIMIT:
            raise ArchiveRefused("tar-extended-header-size")
        text = look(size + -size % BLOCK)[:size]
        if kind == _PAX_GLOBAL:
            if _records(text).keys() - {b"comment"}:
                raise ArchiveRefused("tar-global-header")
        elif pax is not None or kind in long or (kind == _PAX and long):
            raise ArchiveRefused("tar-extended-header-repeated")
        elif kind == _PAX:
            pax = _NOTHING if _TIMES.fullmatch(text) else _records(text)
        else:
            long[kind] = text.rstrip(b"\0")
        block = look(BLOCK)
        header = _header(block)
    if header.type == b"S":
        more, left = block[482], _EXTENDED_LIMIT // BLOCK
        while more:
            more, left = look(BLOCK)[504], left - 1
            if not left:
                raise ArchiveRefused("tar-extended-header-size")
    return _entry(block, header, pax or _NOTHING, long)


class _Header(NamedTuple):
    """The numbers of a header, and its type."""

    mode: int
    uid: int
    gid: int
    size: int
    type: bytes


def _header(block: bytes) -> _Header:
    """Parse a header; its checksum must be right, since tar would skip it otherwise."""
    usual = _NUMBERS.match(block, 100)
    if usual:
        mode, uid, gid, size, checksum = (int(number, 8) for number in usual.groups())
    else:
        fields = (block[a:b] for a, b in ((100, 108), (108, 116), (116, 124), (124, 136)))
        mode, uid, gid, size = map(_number, fields)
        checksum = _number(block[148:156])
    # The sum of all bytes, with blanks in the checksum's own place. The lower half of an
    # Adler-32 is one more than such a sum (RFC 1950, 9), modulo 65521, and it is quick.
    total = (adler32(block) & 0xFFFF) - (adler32(block[148:156]) & 0xFFFF) + 8 * 0x20
    if (total - checksum) % 65521:
        raise ArchiveRefused("tar-header-checksum")
    return _Header(mode, uid, gid, size, block[156:157])


def _entry(
    block: bytes, header: _Header, pax: dict[bytes, bytes], long: dict[bytes, bytes]
) -> TarEntry:
    mode, uid, gid, size, code = header
    name = _name(block, pax, long)
    kind = _KINDS.get(code)
    if kind is None:
        raise ArchiveRefused("tar-entry-type", name=name, type=code)
    if b"size" in pax:
        pax_size = _decimal(pax[b"size"])
        if size not in (0, pax_size):
            raise ArchiveRefused("tar-entry-two-sizes", name=name)
        size = pax_size
    if size and kind != "file":
        raise ArchiveRefused("tar-entry-content", name=name, kind=kind)
    if kind == "file" and name.endswith(b"/"):
        raise ArchiveRefused("tar-entry-file-or-directory", name=name)
    target = b""
    if kind.endswith("link"):
        target = pax.get(b"linkpath") or long.get(_LONG_LINK) or block[157:257].partition(b"\0")[0]
    device = (0, 0)
    if kind.endswith("device"):
        device = _number(block[329:337]), _number(block[337:345])
    if b"\0" in name or b"\0" in target:
        raise ArchiveRefused("tar-entry-nul", name=name)
    if not pax:
        return TarEntry(name, kind, mode, size, (uid, gid), target, device, {}, code == b"S")
    owner = _decimal(pax.get(b"uid", b"%d" % uid)), _decimal(pax.get(b"gid", b"%d" % gid))
    attributes = {k[len(_XATTR) :]: v for k, v in pax.items() if k.startswith(_XATTR)}
    sparse = code == b"S" or any(keyword.startswith(b"GNU.sparse.") for keyword in pax)
    has_acl = any(keyword.startswith(b"SCHILY.acl.") for keyword in pax)
    return TarEntry(name, kind, mode, size, owner, target, device, attributes, sparse, has_acl)


def _name(block: bytes, pax: dict[bytes, bytes], long: dict[bytes, bytes]) -> bytes:
    if pax or long:
        name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long.get(_LONG_NAME)
        if name:
            return name
    name = block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":  # GNU has times there
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _number(field: bytes) -> int:
    """Parse a number of a header: octal digits, or base 256 where GNU tar found those too few."""
    match = _OCTAL.fullmatch(field)
    if match:
        return int(match[1], 8)
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    raise ArchiveRefused("tar-header-number")


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise ArchiveRefused("tar-extended-header-number")
    return int(text)


def _records(text: bytes) -> dict[bytes, bytes]:
    """Parse the records `LENGTH KEYWORD=VALUE\\n` of an extended header (pax(1))."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(text):
        blank = text.find(b" ", position, position + 10)
        digits = text[position : max(blank, position)]
        end = position + int(digits) if digits.isdigit() else 0
        keyword, equals, value = text[blank + 1 : end - 1].partition(b"=")
        if not blank < end <= len(text) or text[end - 1 : end] != b"\n" or not equals:
            raise ArchiveRefused("tar-extended-header-damaged")
        if keyword not in _KEYWORDS and not keyword.startswith(_KEYWORD_PREFIXES):
            raise ArchiveRefused("tar-keyword", keyword=keyword)
        if not value and keyword in _NAMES:
            raise ArchiveRefused("tar-name-empty")
        records[keyword] = value
        position = end
    return records


def escaped(name: bytes) -> str:
    r"""Write a name from an archive on one line, cut and with escapes as in `caf\xc3\xa9`."""
    return repr(name[:200])[2:-1]
