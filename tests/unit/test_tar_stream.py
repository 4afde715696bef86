"""The tar stream of a stage: parsing, and that nothing is written before it was checked."""

from __future__ import annotations

import io
import random
import tarfile
from typing import Any, Literal

import pytest

from tasks.seed.contents import parse_line
from tasks.seed.policy import StagePolicy, inner_path
from tasks.seed.tar_stream import ArchiveRefused, TarEntry, copy_checked
from tests.kit.refused import refused

Form = Literal[0, 1, 2]


class UnevenReads(io.BytesIO):
    """Returns a random number of bytes at each read, `most` at most."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self._most, self._random = most, random.Random(most)  # noqa: S311

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, self._random.randint(1, self._most)))


def archive_of_all_kinds(form: Form = tarfile.PAX_FORMAT) -> tuple[bytes, list[str]]:
    """Make an archive with an entry of each kind except devices; return it and the names in it."""
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
def test_copy_checked_with_any_read_sizes_writes_the_same_bytes(form: Form, most: int) -> None:
    data, names = archive_of_all_kinds(form)
    sink = io.BytesIO()
    entries: list[TarEntry] = []
    copy_checked(UnevenReads(data + _end(data), most), sink, entries.append)
    assert sink.getvalue() == data + _end(data)
    assert [entry.name.decode().rstrip("/") for entry in entries] == [
        name.rstrip("/") for name in names
    ]
    assert [entry.size for entry in entries] == [0, 0, 3_000_000, 0, 512, 0, 511, 0]
    assert [entry.target for entry in entries if entry.target] == [b"./a", b"t" * 300]


def _end(data: bytes) -> bytes:
    return bytes(-len(data) % tarfile.RECORDSIZE)


@pytest.mark.parametrize("most", [1 << 20, 700])
@pytest.mark.parametrize("bad", range(8))
def test_copy_checked_writes_nothing_of_a_refused_entry(bad: int, most: int) -> None:
    data, _ = archive_of_all_kinds()
    sink = io.BytesIO()
    entries: list[TarEntry] = []

    def check(entry: TarEntry) -> None:
        if len(entries) == bad:
            raise ArchiveRefused("entry-twice", path="x")
        entries.append(entry)

    with refused(ArchiveRefused, "entry-twice"):
        copy_checked(UnevenReads(data, most), sink, check)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        start = archive.getmembers()[bad].offset
    assert len(sink.getvalue()) <= start
    assert data.startswith(sink.getvalue())


@pytest.mark.parametrize("size", [0, 1, 511, 512, 1000, 5000])
def test_copy_checked_of_part_of_an_archive_is_refused(size: int) -> None:
    part = archive_of_all_kinds()[0][:size]
    with refused(ArchiveRefused, "tar-truncated"):
        copy_checked(io.BytesIO(part), io.BytesIO(), lambda _: None)


def test_copy_checked_of_random_headers_raises_only_archive_refused() -> None:
    data, _ = archive_of_all_kinds()
    dice = random.Random(1)  # noqa: S311
    for _ in range(1000):
        damaged = bytearray(data[:4096] + bytes(1024))
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(2048)] = dice.randrange(256)
        for start in range(0, 2048, 512):  # a correct checksum, so that parsing continues
            block = damaged[start : start + 512]
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            if dice.random() < 0.8:
                damaged[start + 148 : start + 156] = b"%06o\0 " % total
        policy = StagePolicy(1 << 20)

        def check(entry: TarEntry, policy: StagePolicy = policy) -> None:
            policy.admit(entry)

        try:
            copy_checked(io.BytesIO(bytes(damaged)), io.BytesIO(), check)
        except ArchiveRefused as refusal:
            assert refusal.message.isprintable()


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
def test_inner_path_of_an_acceptable_name(name: bytes, path: bytes) -> None:
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
def test_inner_path_of_a_name_that_leads_out_is_refused(name: bytes) -> None:
    with pytest.raises(ArchiveRefused):
        inner_path(name)


@pytest.mark.parametrize(
    ("line", "expected"),
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
def test_parse_line_of_contents(line: str, expected: tuple[Any, ...]) -> None:
    entry = parse_line(line.encode())
    assert (entry.kind, entry.path, entry.owner, entry.size) == expected
