"""Hostile archives of snapshots, through the real xz."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.errors import NotTrusted
from tasks.snapshot import archive
from tasks.snapshot.archive import TreeFile
from tests.kit.refused import refused
from tests.kit.snapshots import entry, pack, snapshot, tar

TOP = entry("top", mode=0o755, kind=tarfile.DIRTYPE)
GOOD = entry("top/good", b"good")


def tree_files(path: Path) -> Iterator[TreeFile]:
    with path.open("rb") as stream, archive.tree_files(stream, path.name) as files:
        yield from files


@contextmanager
def refused_as(*codes: str) -> Iterator[None]:
    """Expect an archive to be refused with one of these codes, in one line."""
    with pytest.raises(NotTrusted) as refusal:
        yield
    assert refusal.value.code in codes
    assert "\n" not in refusal.value.message


def archive_of(folder: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    return pack(folder / "x.tar.xz", tar(*entries))


def test_good_archive_yields_its_files(tmp_path: Path) -> None:
    script = entry("top/a/script", b"#!", 0o755)
    files = list(tree_files(archive_of(tmp_path, TOP, GOOD, script, entry("./top/empty"))))
    assert files == [
        TreeFile("good", b"good", executable=False),
        TreeFile("a/script", b"#!", executable=True),
        TreeFile("empty", b"", executable=False),
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_in_every_format(tmp_path: Path, form: int) -> None:
    name = "/".join(["d" * 60] * 3)
    raw = tar(TOP, entry(f"top/{name}", b"x"), form=form)
    assert [m.path for m in tree_files(pack(tmp_path / "x.tar.xz", raw))] == [name]


def test_snapshot_has_its_time(tmp_path: Path) -> None:
    paths = [m.path for m in tree_files(snapshot(tmp_path))]
    assert "metadata/timestamp.x" in paths


def special(kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    return entry("top/special", kind=kind, link=link)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (entry("top/../../etc/passwd", b"x"), "archive-bad-path"),
        (entry("/etc/passwd", b"x"), "archive-bad-path"),
        (entry("top/.git/config", b"x"), "archive-bad-path"),
        (entry("top/.GIT", mode=0o755, kind=tarfile.DIRTYPE), "archive-bad-path"),
        (entry("top/a\nb", b"x"), "archive-bad-path"),
        (entry("top/" + "d/" * 40 + "x", b"x"), "archive-bad-path"),
        (entry("other/x", b"x"), "archive-two-tops"),
        (entry("stray", b"x"), "archive-two-tops"),
        (special(tarfile.SYMTYPE, "/etc/shadow"), "archive-not-a-file"),
        (special(tarfile.SYMTYPE, "good"), "archive-not-a-file"),
        (special(tarfile.LNKTYPE, "top/good"), "archive-not-a-file"),
        (special(tarfile.CHRTYPE), "archive-not-a-file"),
        (special(tarfile.BLKTYPE), "archive-not-a-file"),
        (special(tarfile.FIFOTYPE), "archive-not-a-file"),
        (special(b"?"), "archive-not-a-file"),
        (entry("top/su", b"x", 0o4755), "archive-setuid"),
        (entry("top/sg", b"x", 0o2755), "archive-setuid"),
        (entry("top/sd", mode=0o2755, kind=tarfile.DIRTYPE), "archive-setuid"),
    ],
    ids=lambda case: case if isinstance(case, str) else f"{case[0].name[:20]}-{case[0].type!r}",
)
def test_hostile_entry_is_refused(
    tmp_path: Path, bad: tuple[tarfile.TarInfo, bytes], code: str
) -> None:
    with refused_as(code):
        list(tree_files(archive_of(tmp_path, TOP, GOOD, bad)))


def test_file_at_the_top_is_refused(tmp_path: Path) -> None:
    with refused(NotTrusted, "archive-not-a-file", path="top/"):
        list(tree_files(archive_of(tmp_path, entry("top", b"x"))))


@pytest.mark.parametrize(
    ("limit", "enough", "code"),
    [
        ("_FILE_LIMIT", 10, "archive-too-large"),
        ("_BYTES_LIMIT", 90, "archive-too-large"),
        ("_ONE_FILE_LIMIT", 10, "archive-file-too-large"),
    ],
)
def test_archive_beyond_a_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, enough: int, code: str
) -> None:
    path = archive_of(tmp_path, TOP, *(entry(f"top/{n}", b"x" * 10) for n in range(9)))
    monkeypatch.setattr(archive, limit, enough)
    assert len(list(tree_files(path))) == 9
    monkeypatch.setattr(archive, limit, enough - 1)
    with refused_as(code):
        list(tree_files(path))


def test_empty_entries_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_FILE_LIMIT", 100)
    folders = (entry(f"top/{n}", mode=0o755, kind=tarfile.DIRTYPE) for n in range(101))
    with refused_as("archive-too-large"):
        list(tree_files(archive_of(tmp_path, *folders)))


NOISE = random.Random(1).randbytes(100_000)  # noqa: S311 - bytes that do not compress


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"<html>not found</html>",
        lambda data: data[:6],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:5000] + b"\xff" + data[5001:],
    ],
    ids=["empty", "html", "magic only", "half", "last byte", "one more", "flipped"],
)
def test_incomplete_xz_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = archive_of(tmp_path, TOP, entry("top/noise", NOISE))
    path.write_bytes(spoil(path.read_bytes()))
    with refused_as("archive-xz-incomplete", "archive-truncated", "archive-header-damaged"):
        list(tree_files(path))


def flip_bit(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda raw: raw[:511],
        lambda raw: raw[:1536],  # no end
        lambda raw: raw[:1800],  # half a header
        lambda raw: raw[:2100],  # half a file
        lambda raw: flip_bit(raw, 512),  # tarfile takes a damaged header for the end
        lambda raw: flip_bit(raw, 1536),
        lambda raw: raw + b"\1",
        lambda raw: raw + raw,
        lambda raw: raw + b"\1" * (1 << 20),
        lambda raw: raw + bytes(1 << 20) + b"\1",
    ],
)
def test_incomplete_tar_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    raw = tar(TOP, GOOD, entry("top/last", b"x" * 300))
    assert raw[1536:].startswith(b"top/last")
    with refused_as("archive-truncated", "archive-header-damaged", "archive-data-after-end"):
        list(tree_files(pack(tmp_path / "x.tar.xz", spoil(raw))))


def test_zeros_after_the_end_are_padding(tmp_path: Path) -> None:
    """tar pads to its record size, which may be any (tar -b)."""
    raw = tar(TOP, GOOD) + bytes(5 << 20)
    assert len(list(tree_files(pack(tmp_path / "x.tar.xz", raw)))) == 1


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
def test_bad_size_is_refused(tmp_path: Path, field: bytes) -> None:
    with pytest.raises(NotTrusted):
        list(tree_files(pack(tmp_path / "x.tar.xz", with_size(field))))


@pytest.mark.parametrize(
    "headers",
    [{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, {"size": "-1"}, {"size": "x"}],
    ids=str,
)
def test_bad_extended_header_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    bad = entry("top/bad", b"x" * 512)
    bad[0].pax_headers = headers
    raw = tar(TOP, bad, GOOD, form=tarfile.PAX_FORMAT)
    try:
        paths = [m.path for m in tree_files(pack(tmp_path / "x.tar.xz", raw))]
    except NotTrusted:
        return
    assert set(paths) <= {"bad", "good"}


def test_abandoned_stream_leaves_no_process(tmp_path: Path) -> None:
    path = archive_of(tmp_path, TOP, *(entry(f"top/{n}", NOISE) for n in range(30)))
    before = _children()
    stream = tree_files(path)
    next(stream)
    assert _children() != before
    del stream
    assert _children() == before


def _children() -> list[str]:
    return Path("/proc/thread-self/children").read_text().split()
