"""A stage's tar stream: what is read in it, and that nothing goes on before it was judged."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from typing import Any, Literal

import pytest

from tasks.seed.contents import _parsed
from tasks.seed.policy import Admission, inner_path
from tasks.seed.tar_stream import BadTar, Member, relay

Form = Literal[0, 1, 2]


class Dribble(io.BytesIO):
    """Gives at most so many bytes at once, never the same number twice in turn."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self._most, self._chance = most, random.Random(most)  # noqa: S311

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, self._chance.randint(1, self._most)))


def packed(form: Form = tarfile.PAX_FORMAT) -> tuple[bytes, list[str]]:
    """An archive of everything but devices, and the names in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=form) as archive:
        for name, kind, size, target in (
            ("./", tarfile.DIRTYPE, 0, ""),
            ("./a", tarfile.REGTYPE, 0, ""),
            ("./b", tarfile.REGTYPE, 3_000_000, ""),
            ("./c", tarfile.LNKTYPE, 0, "./a"),
            ("./" + "d" * 200, tarfile.REGTYPE, 512, ""),
            ("./e", tarfile.SYMTYPE, 0, "t" * 300),
            ("./f/" * 60 + "g", tarfile.REGTYPE, 511, ""),
            ("./\u00e9", tarfile.FIFOTYPE, 0, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname, member.mtime = kind, size, target, 1.5
            archive.addfile(member, io.BytesIO(bytes(range(256)) * (size // 256 + 1)))
        return out.getvalue(), [member.name for member in archive.getmembers()]


@pytest.mark.parametrize("most", [1 << 20, 5000, 512, 300])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_it_goes_on_as_it_came(form: Form, most: int) -> None:
    data, names = packed(form)
    sink = io.BytesIO()
    seen: list[Member] = []
    relay(Dribble(data + _end(data), most), sink, seen.append)
    assert sink.getvalue() == data + _end(data)
    assert [each.name.decode().rstrip("/") for each in seen] == [name.rstrip("/") for name in names]
    assert [each.size for each in seen] == [0, 0, 3_000_000, 0, 512, 0, 511, 0]
    assert [each.target for each in seen if each.target] == [b"./a", b"t" * 300]


def _end(data: bytes) -> bytes:
    return bytes(-len(data) % tarfile.RECORDSIZE)


@pytest.mark.parametrize("most", [1 << 20, 700])
@pytest.mark.parametrize("bad", range(8))
def test_nothing_of_a_bad_one_goes_on(bad: int, most: int) -> None:
    data, _ = packed()
    sink = io.BytesIO()
    seen: list[Member] = []

    def judge(member: Member) -> None:
        if len(seen) == bad:
            raise BadTar("bad")
        seen.append(member)

    with pytest.raises(BadTar, match="bad"):
        relay(Dribble(data, most), sink, judge)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        begins = archive.getmembers()[bad].offset
    assert len(sink.getvalue()) <= begins
    assert data.startswith(sink.getvalue())


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1000, 5000])
def test_a_part_of_it(size: int) -> None:
    with pytest.raises(BadTar, match="it is not a whole tar archive"):
        relay(io.BytesIO(packed()[0][:size]), io.BytesIO(), lambda _: None)


def admitting() -> Callable[[Member], None]:
    admission = Admission(1 << 20)

    def judge(member: Member) -> None:
        admission(member)

    return judge


def test_a_thousand_archives_of_noise() -> None:
    """Whatever is wrong with a header is a BadTar, and no other error."""
    data, _ = packed()
    chance = random.Random(1)  # noqa: S311
    for _ in range(1000):
        spoilt = bytearray(data[:4096] + bytes(1024))
        for _ in range(chance.randint(1, 4)):
            spoilt[chance.randrange(2048)] = chance.randrange(256)
        for start in range(0, 2048, 512):  # so that more than the checksum is looked at
            block = spoilt[start : start + 512]
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            if chance.random() < 0.8:
                spoilt[start + 148 : start + 156] = b"%06o\0 " % total
        try:
            relay(io.BytesIO(bytes(spoilt)), io.BytesIO(), admitting())
        except BadTar as bad:
            assert str(bad).isprintable()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"./usr/bin/sh", b"usr/bin/sh"),
        (b"usr/", b"usr"),
        (b"./", b""),
        (b".", b""),
        (b"./.a", b".a"),
        (b".a/..b/.c", b".a/..b/.c"),
        (b"./a/.keep", b"a/.keep"),
        (b"...", b"..."),
        (b"\xe9", b"\xe9"),
        (b"a\\b", b"a\\b"),
        (b" ", b" "),
    ],
)
def test_a_path_inside(name: bytes, path: bytes) -> None:
    assert inner_path(name) == path


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"/",
        b"//",
        b"..",
        b"../a",
        b"a/..",
        b"a/../b",
        b"/a",
        b"./..",
        b"././a",
        b".//a",
        b"a//b",
        b"a//",
        b"a/.",
        b"a/./b",
        b"./.",
        b"./../a",
        b"a/" * 101 + b"b",
    ],
)
def test_a_path_that_is_none(name: bytes) -> None:
    with pytest.raises(BadTar):
        inner_path(name)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("-rwsr-xr-x root/root  59976 2026-02-01 10:00 ./bin/su", ("-", b"bin/su", None, 59976)),
        ("drwxr-xr-x 0/0 0 2026-02-01 10:00:01 ./", ("d", b"", (0, 0), 0)),
        ("-rw-r--r--* 250/4242 1 2026-02-01 10:00 a b", ("-", b"a b", (250, 4242), 1)),
        ("lrwxrwxrwx 0/0 0 2026-02-01 10:00 ./bin -> usr/bin", ("l", b"bin", (0, 0), 0)),
        ("hrw-r--r-- 0/0 0 2026-02-01 10:00 ./b link to ./a", ("h", b"b", (0, 0), 0)),
        ("crw-rw-rw- 0/0 1,3 2026-02-01 10:00 ./dev/null", ("c", b"dev/null", (0, 0), 0)),
        (r"-rw-r--r-- 0/0 1 2026-02-01 10:00 ./\303\251\\\n", ("-", b"\xc3\xa9\\\n", (0, 0), 1)),
    ],
)
def test_a_line_of_contents(line: str, wanted: tuple[Any, ...]) -> None:
    found = _parsed(line.encode())
    assert (found.kind, found.path, found.owner, found.size) == wanted
