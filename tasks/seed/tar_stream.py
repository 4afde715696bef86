"""The members of a stage's tar stream: each is judged before GNU tar gets to see it.

Read by the rules of GNU tar 1.34 (tar(5), and its src/list.c, src/xheader.c), and refused where it,
or another tar, could read something else: what was judged is then what is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, Protocol
from zlib import adler32

BLOCK = 512
_ZEROS = bytes(BLOCK)
_CHUNK = 1 << 20
_EXTENDED_LIMIT = 1 << 20  # bytes of an extended header; an extended attribute has 64 KiB at most
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
# mode, uid, gid, size, mtime and checksum, from byte 100 on, as GNU tar writes them
_NUMBERS = re.compile(rb"([0-7]{7})\0([0-7]{7})\0([0-7]{7})\0([0-7]{11})\0[0-7]{11}\0([0-7]{6})\0 ")
# Nearly all extended headers: whatever their lengths, they are about times and nothing else.
_TIMES = re.compile(rb"(?:[0-9]+ [acm]time=-?[0-9]+(?:\.[0-9]+)?\n)+")
_NOTHING: dict[bytes, bytes] = {}
_KINDS = {
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
# What an extended header may say: all that tar heeds on extraction, but for dumps and volumes.
_KEYWORDS = frozenset(
    b"atime ctime mtime gid gname uid uname path linkpath size comment charset hdrcharset "
    b"SCHILY.acl.access SCHILY.acl.default RHT.security.selinux".split()
)
_KEYWORD_PREFIXES = (b"SCHILY.xattr.", b"GNU.sparse.", b"LIBARCHIVE.")
_NAMES = (b"path", b"linkpath", b"GNU.sparse.name")
_XATTR = b"SCHILY.xattr."


class BadTar(Exception):
    """Not a whole tar archive, or one that must not be unpacked; str() says why."""


class Member(NamedTuple):
    """What one entry would make: `size` is of its data in the archive, in bytes.

    `name` and `target` (of links) are as they stand there; `owner` is user and group, `device`
    major and minor number. The data of a `sparse` file are not what will be read from it; one that
    is `listed` has an access control list.
    """

    name: bytes
    kind: str
    mode: int
    size: int
    owner: tuple[int, int] = (0, 0)
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    attributes: dict[bytes, bytes] = {}  # noqa: RUF012 - never changed
    sparse: bool = False
    listed: bool = False


# What is to see a member's data as they go by, bit by bit.
Look = Callable[[memoryview], object]


class Source(Protocol):
    """An archive: `read` may give less than it is asked for, and nothing only at its end."""

    def read(self, count: int, /) -> bytes: ...


def relay(source: Source, sink: BinaryIO, judge: Callable[[Member], Look | None]) -> None:
    """Copy a whole archive, handing each member to `judge` before its first byte is copied.

    What `judge` returns gets the member's data. Raises BadTar, and whatever `judge` raises.
    """
    tape = _Tape(source.read, sink.write)
    while (block := tape.take(BLOCK)) != _ZEROS:
        member = _member(block, tape.take)
        tape.pass_on(member.size, judge(member))
        tape.pass_on(-member.size % BLOCK)
    tape.pass_on(0)
    while rest := tape.rest():
        if rest.strip(b"\0"):
            raise BadTar("something comes after its end")
        sink.write(rest)


class _Tape:
    """An archive on its way: nothing that was taken goes on before `pass_on` is called."""

    def __init__(self, read: Callable[[int], bytes], write: Callable[[memoryview], int]) -> None:
        self._read, self._write = read, write
        self._held = b""
        self._sent = self._good = self._at = 0  # positions in it: written, may be, taken

    def take(self, count: int) -> bytes:
        """The next bytes, to be looked at."""
        if len(self._held) - self._at < count:
            self._send(self._good)
            parts, self._at = [self._held[self._good :]], self._at - self._good
            missing = self._at + count - len(parts[0])
            while missing > 0:
                parts.append(self._more())
                missing -= len(parts[-1])
            self._held, self._sent, self._good = b"".join(parts), 0, 0
        found = self._held[self._at : self._at + count]
        self._at += count
        return found

    def pass_on(self, count: int, look: Look | None = None) -> None:
        """Let go on all that was taken, and as many bytes after it, at which only `look` looks."""
        start, end = self._at, self._at + count
        while end > len(self._held):
            if look:
                look(memoryview(self._held)[start:])
            self._send(len(self._held))
            start, end = 0, end - len(self._held)
            self._held, self._sent = self._more(), 0
        if look:
            look(memoryview(self._held)[start:end])
        self._good = self._at = end

    def rest(self) -> bytes:
        """What comes after all that was taken, bit by bit; all of that must have been passed on."""
        self._send(self._at)
        found, self._held, self._sent, self._at = self._held[self._at :], b"", 0, 0
        return found or self._read(_CHUNK)

    def _send(self, end: int) -> None:
        self._write(memoryview(self._held)[self._sent : end])
        self._sent = end

    def _more(self) -> bytes:
        found = self._read(_CHUNK)
        if not found:
            raise BadTar("it is not a whole tar archive: it ends too early")
        return found


def _member(block: bytes, take: Callable[[int], bytes]) -> Member:
    """The next member, by all the blocks that describe it; `block` is the first of them."""
    pax: dict[bytes, bytes] | None = None
    long: dict[bytes, bytes] = {}
    described = 0
    header = _header(block)
    while header.kind in _EXTENSIONS:
        size, kind = header.size, header.kind
        described += size
        if not 0 < size <= _EXTENDED_LIMIT or described > _EXTENDED_LIMIT:
            raise BadTar("an extended header is larger than one can be")
        text = take(size + -size % BLOCK)[:size]
        if kind == _PAX_GLOBAL:
            if _records(text).keys() - {b"comment"}:
                raise BadTar("a global extended header changes what comes after it")
        elif pax is not None or kind in long or (kind == _PAX and long):
            raise BadTar("two extended headers describe one entry")
        elif kind == _PAX:
            pax = _NOTHING if _TIMES.fullmatch(text) else _records(text)
        else:
            long[kind] = text.rstrip(b"\0")
        block = take(BLOCK)
        header = _header(block)
    if header.kind == b"S":
        more, left = block[482], _EXTENDED_LIMIT // BLOCK
        while more:
            more, left = take(BLOCK)[504], left - 1
            if not left:
                raise BadTar("an extended header is larger than one can be")
    return _described(block, header, pax or _NOTHING, long)


class _Header(NamedTuple):
    """The numbers of a header, and its type."""

    mode: int
    uid: int
    gid: int
    size: int
    kind: bytes


def _header(block: bytes) -> _Header:
    """A header whose checksum is right: tar would skip one with another."""
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
        raise BadTar("it is not a whole tar archive: a header is damaged")
    return _Header(mode, uid, gid, size, block[156:157])


def _described(
    block: bytes, header: _Header, pax: dict[bytes, bytes], long: dict[bytes, bytes]
) -> Member:
    mode, uid, gid, size, kind = header
    name = block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":  # GNU has times there
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    if pax or long:
        name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long.get(_LONG_NAME) or name
    what = _KINDS.get(kind)
    if what is None:
        raise BadTar(f"{shown(name)} is of an unknown type ({shown(kind)})")
    if b"size" in pax:
        said = _decimal(pax[b"size"])
        if size not in (0, said):
            raise BadTar(f"{shown(name)} has two sizes")
        size = said
    if size and what != "file":
        raise BadTar(f"{shown(name)} is a {what} with content")
    if what == "file" and name.endswith(b"/"):
        raise BadTar(f"{shown(name)} is a file by its type and a directory by its name")
    target = b""
    if what.endswith("link"):
        target = pax.get(b"linkpath") or long.get(_LONG_LINK) or block[157:257].partition(b"\0")[0]
    device = (0, 0)
    if what.endswith("device"):
        device = _number(block[329:337]), _number(block[337:345])
    if b"\0" in name or b"\0" in target:
        raise BadTar(f"{shown(name)} has a NUL in its name")
    if not pax:
        return Member(name, what, mode, size, (uid, gid), target, device, {}, kind == b"S")
    owner = _decimal(pax.get(b"uid", b"%d" % uid)), _decimal(pax.get(b"gid", b"%d" % gid))
    attributes = {k[len(_XATTR) :]: v for k, v in pax.items() if k.startswith(_XATTR)}
    sparse = kind == b"S" or any(keyword.startswith(b"GNU.sparse.") for keyword in pax)
    listed = any(keyword.startswith(b"SCHILY.acl.") for keyword in pax)
    return Member(name, what, mode, size, owner, target, device, attributes, sparse, listed)


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or base 256 where GNU tar found those too few."""
    match = _OCTAL.fullmatch(field)
    if match:
        return int(match[1], 8)
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    raise BadTar("it is not a whole tar archive: a header has no number where one belongs")


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise BadTar("an extended header has no number where one belongs")
    return int(text)


def _records(text: bytes) -> dict[bytes, bytes]:
    """The records `LENGTH KEYWORD=VALUE\\n` of an extended header (pax(1))."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        blank = text.find(b" ", at, at + 10)
        digits = text[at : max(blank, at)]
        end = at + int(digits) if digits.isdigit() else 0
        keyword, equals, value = text[blank + 1 : end - 1].partition(b"=")
        if not blank < end <= len(text) or text[end - 1 : end] != b"\n" or not equals:
            raise BadTar("an extended header is damaged")
        if keyword not in _KEYWORDS and not keyword.startswith(_KEYWORD_PREFIXES):
            raise BadTar(f"an extended header has an unknown keyword ({shown(keyword)})")
        if not value and keyword in _NAMES:
            raise BadTar("an extended header has an empty name")
        found[keyword] = value
        at = end
    return found


def shown(name: bytes) -> str:
    """A name from an archive as it may be printed: on one line, whatever it is."""
    return repr(name[:200])[1:]
