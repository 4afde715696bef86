"""Snapshots that no mirror should have, through the real xz."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.errors import NotTrusted
from tasks.snapshot import archive
from tasks.snapshot.archive import Member
from tests.kit.snapshots import entry, pack, snapshot, tar

TOP = entry("top", mode=0o755, kind=tarfile.DIRTYPE)
GOOD = entry("top/good", b"good")


def members(path: Path) -> Iterator[Member]:
    with path.open("rb") as stream, archive.members(stream, path.name) as files:
        yield from files


def packed(folder: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    return pack(folder / "x.tar.xz", tar(*entries))


def test_a_good_one(tmp_path: Path) -> None:
    script = entry("top/a/script", b"#!", 0o755)
    found = list(members(packed(tmp_path, TOP, GOOD, script, entry("./top/empty"))))
    assert found == [
        Member("good", b"good", executable=False),
        Member("a/script", b"#!", executable=True),
        Member("empty", b"", executable=False),
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_in_every_format(tmp_path: Path, form: int) -> None:
    name = "/".join(["d" * 60] * 3)
    raw = tar(TOP, entry(f"top/{name}", b"x"), form=form)
    assert [m.path for m in members(pack(tmp_path / "x.tar.xz", raw))] == [name]


def test_a_whole_snapshot(tmp_path: Path) -> None:
    paths = [m.path for m in members(snapshot(tmp_path))]
    assert "metadata/timestamp.x" in paths


def odd(kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    return entry("top/odd", kind=kind, link=link)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (entry("top/../../etc/passwd", b"x"), "does not belong"),
        (entry("/etc/passwd", b"x"), "does not belong"),
        (entry("top/.git/config", b"x"), "does not belong"),
        (entry("top/.GIT", mode=0o755, kind=tarfile.DIRTYPE), "does not belong"),
        (entry("top/a\nb", b"x"), "does not belong"),
        (entry("top/" + "d/" * 40 + "x", b"x"), "does not belong"),
        (entry("other/x", b"x"), "more than one top directory"),
        (entry("stray", b"x"), "more than one top directory"),
        (odd(tarfile.SYMTYPE, "/etc/shadow"), "neither"),
        (odd(tarfile.SYMTYPE, "good"), "neither"),
        (odd(tarfile.LNKTYPE, "top/good"), "neither"),
        (odd(tarfile.CHRTYPE), "neither"),
        (odd(tarfile.BLKTYPE), "neither"),
        (odd(tarfile.FIFOTYPE), "neither"),
        (odd(b"?"), "neither"),
        (entry("top/su", b"x", 0o4755), "setuid"),
        (entry("top/sg", b"x", 0o2755), "setuid"),
        (entry("top/sd", mode=0o2755, kind=tarfile.DIRTYPE), "setuid"),
    ],
    ids=lambda case: case if isinstance(case, str) else f"{case[0].name[:20]}-{case[0].type!r}",
)
def test_hostile_members(tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes], why: str) -> None:
    with pytest.raises(NotTrusted, match=why) as refused:
        list(members(packed(tmp_path, TOP, GOOD, bad)))
    assert "\n" not in refused.value.message


def test_nothing_but_a_file_at_the_top(tmp_path: Path) -> None:
    with pytest.raises(NotTrusted, match="neither a directory nor a file in one"):
        list(members(packed(tmp_path, entry("top", b"x"))))


@pytest.mark.parametrize(
    ("cap", "enough", "why"),
    [
        ("_FILE_LIMIT", 10, "larger than a tree"),
        ("_BYTES_LIMIT", 90, "larger than a tree"),
        ("_ONE_FILE_LIMIT", 10, "larger than one"),
    ],
)
def test_caps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cap: str, enough: int, why: str
) -> None:
    path = packed(tmp_path, TOP, *(entry(f"top/{n}", b"x" * 10) for n in range(9)))
    monkeypatch.setattr(archive, cap, enough)
    assert len(list(members(path))) == 9
    monkeypatch.setattr(archive, cap, enough - 1)
    with pytest.raises(NotTrusted, match=why):
        list(members(path))


def test_empty_entries_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_FILE_LIMIT", 100)
    folders = (entry(f"top/{n}", mode=0o755, kind=tarfile.DIRTYPE) for n in range(101))
    with pytest.raises(NotTrusted, match="larger than a tree"):
        list(members(packed(tmp_path, *folders)))


NOISE = random.Random(1).randbytes(100_000)  # noqa: S311 - bytes that do not compress


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda _: b"", "not a whole"),
        (lambda _: b"<html>not found</html>", "not a whole"),
        (lambda packed: packed[:6], "not a whole"),
        (lambda packed: packed[: len(packed) // 2], "not a whole"),
        (lambda packed: packed[:-1], "not a whole xz file"),
        (lambda packed: packed + b"x", "not a whole xz file"),
        (lambda packed: packed[:5000] + b"\xff" + packed[5001:], "not a whole"),
    ],
    ids=["empty", "html", "magic only", "half", "last byte", "one more", "flipped"],
)
def test_not_a_whole_xz(tmp_path: Path, spoil: Callable[[bytes], bytes], why: str) -> None:
    path = packed(tmp_path, TOP, entry("top/noise", NOISE))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(NotTrusted, match=why):
        list(members(path))


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda raw: raw[:511],
        lambda raw: raw[:1536],  # no end
        lambda raw: raw[:1800],  # half a header
        lambda raw: raw[:2100],  # half a file
        lambda raw: flipped(raw, 512),  # tarfile takes a damaged header for the end
        lambda raw: flipped(raw, 1536),
        lambda raw: raw + b"\1",
        lambda raw: raw + raw,
        lambda raw: raw + b"\1" * (1 << 20),
        lambda raw: raw + bytes(1 << 20) + b"\1",
    ],
)
def test_not_a_whole_tar(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    raw = tar(TOP, GOOD, entry("top/last", b"x" * 300))
    assert raw[1536:].startswith(b"top/last")
    with pytest.raises(NotTrusted, match="not a whole tar archive"):
        list(members(pack(tmp_path / "x.tar.xz", spoil(raw))))


def test_zeros_after_the_end_are_padding(tmp_path: Path) -> None:
    """tar pads to its record size, which is anybody's choice (tar -b)."""
    raw = tar(TOP, GOOD) + bytes(5 << 20)
    assert len(list(members(pack(tmp_path / "x.tar.xz", raw)))) == 1


def with_size(field: bytes) -> bytes:
    raw = bytearray(tar(TOP, GOOD))
    raw[512 + 124 : 512 + 136] = field
    raw[512 + 148 : 512 + 156] = b" " * 8
    raw[512 + 148 : 512 + 156] = b"%06o\0 " % sum(raw[512:1024])
    return bytes(raw)


@pytest.mark.parametrize(
    "field",
    [b"\xff" * 11 + b"\x00", b"\x80" + b"\xff" * 11, b"77777777777\0", b"not octal\0\0\0"],
    ids=["negative", "astronomical", "8 GiB", "no number"],
)
def test_sizes_that_lie(tmp_path: Path, field: bytes) -> None:
    with pytest.raises(NotTrusted):
        list(members(pack(tmp_path / "x.tar.xz", with_size(field))))


@pytest.mark.parametrize(
    "headers",
    [{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, {"size": "-1"}, {"size": "x"}],
    ids=str,
)
def test_extended_headers_that_lie(tmp_path: Path, headers: dict[str, str]) -> None:
    bad = entry("top/bad", b"x" * 512)
    bad[0].pax_headers = headers
    raw = tar(TOP, bad, GOOD, form=tarfile.PAX_FORMAT)
    try:
        found = [m.path for m in members(pack(tmp_path / "x.tar.xz", raw))]
    except NotTrusted:
        return
    assert set(found) <= {"bad", "good"}


def test_given_up_half_way_leaves_no_process(tmp_path: Path) -> None:
    path = packed(tmp_path, TOP, *(entry(f"top/{n}", NOISE) for n in range(30)))
    before = _children()
    stream = members(path)
    next(stream)
    assert _children() != before
    del stream
    assert _children() == before


def _children() -> list[str]:
    return Path("/proc/thread-self/children").read_text().split()
