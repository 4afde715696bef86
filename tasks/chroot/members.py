"""The members of a stage's tar stream: each is judged before GNU tar gets to see it.

Read by the rules of GNU tar 1.34 (tar(5), and its src/list.c, src/xheader.c), and refused where it,
or another tar, could read something else: what was judged is then what is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO, NamedTuple
from zlib import adler32

BLOCK = 512
_ZEROS = bytes(BLOCK)
_CHUNK = 1 << 20
_EXTENDED_LIMIT = 1 << 20  # bytes of an extended header; an extended attribute has 64 KiB at most
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
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

    `name` and `target` (of links) are as they stand there; `device` is major and minor number.
    """

    name: bytes
    kind: str
    mode: int
    size: int
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    attributes: dict[bytes, bytes] = {}  # noqa: RUF012 - never changed


def relay(source: BinaryIO, sink: BinaryIO, judge: Callable[[Member], None]) -> None:
    """Copy a whole archive, handing each member to `judge` before its first byte is copied.

    `source` must give as many bytes as it is asked for, unless it ends. Raises BadTar, and
    whatever `judge` raises.
    """
    read, write = source.read, sink.write
    block = read(BLOCK)
    while block != _ZEROS:
        head, member = _member(block, read)
        judge(member)
        write(head)
        left = member.size + -member.size % BLOCK
        while left > _CHUNK:
            left -= write(_whole(read(_CHUNK), _CHUNK))
        rest = read(left + BLOCK)  # with the next header: one call less
        block = _whole(rest, left + BLOCK)[left:]
        write(memoryview(rest)[:left])
    write(block)
    while rest := read(_CHUNK):
        if rest.strip(b"\0"):
            raise BadTar("something comes after its end")
        write(rest)


def _whole(found: bytes, wanted: int) -> bytes:
    if len(found) < wanted:
        raise BadTar("it is not a whole tar archive: it ends too early")
    return found


def _member(block: bytes, read: Callable[[int], bytes]) -> tuple[bytes, Member]:
    """The next member, and all the blocks that describe it; `block` is the first of them."""
    head, pax = block, None
    long: dict[bytes, bytes] = {}
    while (kind := _checked(block)) in _EXTENSIONS:
        size = _number(block[124:136])
        if not 0 < size <= _EXTENDED_LIMIT or len(head) > 2 * _EXTENDED_LIMIT:
            raise BadTar("an extended header is larger than one can be")
        padded = size + -size % BLOCK
        rest = _whole(read(padded + BLOCK), padded + BLOCK)
        text, block = rest[:size], rest[padded:]
        head += rest
        if kind == _PAX_GLOBAL:
            if _records(text).keys() - {b"comment"}:
                raise BadTar("a global extended header changes what comes after it")
        elif kind == _PAX:
            if pax is not None or long:
                raise BadTar("two extended headers describe one entry")
            pax = _records(text)
        else:
            if pax is not None or kind in long:
                raise BadTar("two extended headers describe one entry")
            long[kind] = text.rstrip(b"\0")
    member = _described(block, kind, pax or {}, long)
    if kind == b"S":
        more = block[482]
        while more:
            block = _whole(read(BLOCK), BLOCK)
            head += block
            more = block[504]
            if len(head) > 2 * _EXTENDED_LIMIT:
                raise BadTar("an extended header is larger than one can be")
    return head, member


def _checked(block: bytes) -> bytes:
    """The type of a header whose checksum is right: tar would skip one where it is not."""
    if len(block) < BLOCK:
        raise BadTar("it is not a whole tar archive: it ends too early")
    # The sum of all bytes, with blanks in the checksum's own place. The lower half of an
    # Adler-32 is one more than such a sum (RFC 1950, 9), modulo 65521, and it is quick.
    total = (adler32(block) & 0xFFFF) - (adler32(block[148:156]) & 0xFFFF) + 8 * 0x20
    if (total - _number(block[148:156])) % 65521:
        raise BadTar("it is not a whole tar archive: a header is damaged")
    return block[156:157]


def _described(
    block: bytes, kind: bytes, pax: dict[bytes, bytes], long: dict[bytes, bytes]
) -> Member:
    name = block[:100].partition(b"\0")[0]
    if block[345] and block[257:263] == b"ustar\0":  # GNU has times there
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or long.get(_LONG_NAME) or name
    what = _KINDS.get(kind)
    if what is None:
        raise BadTar(f"{shown(name)} is of an unknown type ({shown(kind)})")
    size = _number(block[124:136])
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
    attributes = {k[len(_XATTR) :]: v for k, v in pax.items() if k.startswith(_XATTR)}
    return Member(name, what, _number(block[100:108]), size, target, device, attributes)


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
