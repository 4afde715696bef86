"""Small snapshots for tests: a .tar.xz with metadata/timestamp.x, like those of the mirrors."""

from __future__ import annotations

import contextlib
import io
import lzma
import tarfile
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tasks.snapshot.download import VerifiedArchive
from tasks.system.files import sha512
from tasks.system.gpgv import Signature

DAY = date(2026, 1, 15)
SIGNER = "A" * 40
FILES: Mapping[str, bytes] = {
    "profiles/repo_name": b"gentoo\n",
    "app-misc/one/one-1.ebuild": b"EAPI=8\n",
}


def snapshot_time(day: date) -> int:
    """The time of the snapshot of a day: 00:45 UTC of the next day, in epoch seconds."""
    next_day = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    return int((next_day + timedelta(minutes=45)).timestamp())


def entry(
    name: str, data: bytes = b"", mode: int = 0o644, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """An entry of a tar archive, of any kind."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type, info.linkname = len(data), mode, kind, link
    return info, data


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """An archive of these entries, in this order."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def pack(path: Path, raw: bytes) -> Path:
    """Write bytes as .xz."""
    path.write_bytes(lzma.compress(raw, preset=0))
    return path


def snapshot(
    folder: Path,
    day: date = DAY,
    files: Mapping[str, bytes] = FILES,
    *,
    timestamp: int | None = None,
    scripts: tuple[str, ...] = (),
    top: str = "",
) -> Path:
    """A whole snapshot of a day: `files` below the top directory, `scripts` executable."""
    top = top or f"gentoo-{day:%Y%m%d}"
    time = snapshot_time(day) if timestamp is None else timestamp
    inside = {**files, "metadata/timestamp.x": f"{time} Thu, 01 Jan 2026\n".encode()}
    entries = [entry(top, mode=0o755, kind=tarfile.DIRTYPE)]
    for name, data in inside.items():
        entries.append(entry(f"{top}/{name}", data, 0o755 if name in scripts else 0o644))
    return pack(folder / f"gentoo-{day:%Y%m%d}.tar.xz", tar(*entries))


@contextlib.contextmanager
def verified_tarball(archive: Path) -> Iterator[VerifiedArchive]:
    """An archive whose signature counts as verified."""
    with archive.open("rb") as stream:
        yield VerifiedArchive(
            archive,
            stream,
            f"http://mirror.example/{archive.name}",
            sha512(archive),
            Signature(SIGNER, 0),
        )
