"""Download of a snapshot: the first of the mirrors' archives that is accepted, verified.

Layout of a mirror: MIRROR/snapshots/gentoo-YYYYMMDD.tar.xz with a detached signature in
.gpgsig and a transport check in .md5sum beside it (emerge-webrsync(1)). The signature does not
cover the file's name, so the name only says what to request; see freeze.py for what decides.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from tasks.errors import BinmillError, DownloadFailed, NotTrusted
from tasks.system.files import digests_of
from tasks.system.gpgv import Role, Signature, verify_detached
from tasks.system.http import NotOnMirrors, download
from tasks.system.notes import note
from tasks.system.resumable import discard
from tasks.text import without_password

_SMALL_LIMIT = 1 << 16
_ARCHIVE_LIMIT = 4 << 30

Accepted = TypeVar("Accepted")


@dataclass(frozen=True)
class Source:
    """The mirrors of snapshots called `name`, and the role that must have signed them.

    Archives are downloaded to `downloads`, where a later run resumes a partial one.
    """

    mirrors: tuple[str, ...]
    name: str
    role: Role
    downloads: Path


@dataclass(frozen=True)
class VerifiedArchive:
    """The open archive of a snapshot whose signature was accepted: the bytes that were verified.

    `url` is its source; the file at `path` may have been replaced since.
    """

    path: Path
    stream: BinaryIO
    url: str
    sha512: str
    signature: Signature

    def digest(self) -> str:
        """Compute the SHA-512 of the open file as it is now."""
        return digests_of(self.stream, "sha512")["sha512"]


def fetch(source: Source, day: date, accept: Callable[[VerifiedArchive], Accepted]) -> Accepted:
    """Pass each mirror's archive of a day to `accept`; returns its first result.

    Where a mirror has no archive, or `accept` or the signature refuses it (NotTrusted), the next
    mirror is tried. A mirror whose .md5sum does not match is tried again after all others. Raises
    NotOnMirrors when no mirror has that day, NotTrusted when one was refused, DownloadFailed when
    no mirror can be reached.
    """
    failures: list[BinmillError] = []
    doubtful: list[str] = []
    for mirror in itertools.chain(source.mirrors, doubtful):  # `doubtful` grows meanwhile
        try:
            with _verified_archive(source, mirror, day) as archive:
                if mirror in doubtful or _md5_matches(source, mirror, day, archive):
                    result = accept(archive)
                    for failure in failures:
                        if isinstance(failure, NotTrusted):
                            note(
                                "archive-refused",
                                reason=failure.fields["reason"],
                                cause=failure.message,
                            )
                    return result
                note("md5sum-differs", mirror=without_password(mirror), archive=archive.path.name)
                doubtful.append(mirror)
        except (NotTrusted, DownloadFailed) as failure:
            failures.append(failure)
    worst: type[BinmillError] = DownloadFailed
    for kind in (NotOnMirrors, NotTrusted):
        if any(isinstance(each, kind) for each in failures):
            worst = kind
    raise worst(
        "no-mirror-accepted",
        codes=[str(each.fields.get("reason", each.code)) for each in failures],
        causes=[each.message for each in failures],
        advice=next(each.hint for each in failures if isinstance(each, worst)),
    )


def received_at(source: Source, day: date) -> datetime | None:
    """Return the time at which a mirror received a day's snapshot (UTC); None where none has it.

    The time is not signed: it only tells a person how far behind a mirror is.
    """
    for mirror in source.mirrors:
        with contextlib.suppress(DownloadFailed), _small_files_deleted(source, day):
            return _download_beside(source, mirror, day, ".gpgsig")[1]
    return None


@contextlib.contextmanager
def _verified_archive(source: Source, mirror: str, day: date) -> Iterator[VerifiedArchive]:
    """One mirror's archive, with an accepted signature; deleted after the block."""
    archive = source.downloads / f"{_stem(source, day)}.tar.xz"
    url = _url(source, mirror, day)
    with _small_files_deleted(source, day):
        # the signature first: it is small, and most mirrors lack the day
        signature, _ = _download_beside(source, mirror, day, ".gpgsig")
        result = download([url], archive, limit=_ARCHIVE_LIMIT)
        if result.mixed and not _signature_accepted(source, archive, signature):
            discard(archive)  # the first part came from elsewhere: this mirror is not to blame yet
            result = download([url], archive, limit=_ARCHIVE_LIMIT)
        try:
            with archive.open("rb") as stream:
                digest = digests_of(stream, "sha512")["sha512"]
                try:
                    good_signature = verify_detached(source.role, stream, archive.name, signature)
                    yield VerifiedArchive(archive, stream, result.url, digest, good_signature)
                except NotTrusted as bad:
                    raise NotTrusted(
                        "mirror-not-trusted",
                        mirror=without_password(mirror),
                        reason=bad.fields.get("reason", bad.code),
                        cause=bad.message,
                        advice=bad.hint,
                    ) from bad
        finally:  # no later run may resume a file that was refused
            discard(archive)


@contextlib.contextmanager
def _small_files_deleted(source: Source, day: date) -> Iterator[None]:
    """Delete .gpgsig and .md5sum after the block; a partial archive stays for a later run."""
    try:
        yield
    finally:
        for suffix in (".gpgsig", ".md5sum"):
            discard(source.downloads / f"{_stem(source, day)}.tar.xz{suffix}")


def _signature_accepted(source: Source, archive: Path, signature: Path) -> bool:
    try:
        with archive.open("rb") as stream:
            verify_detached(source.role, stream, archive.name, signature)
    except NotTrusted:
        return False
    return True


def _md5_matches(source: Source, mirror: str, day: date, archive: VerifiedArchive) -> bool:
    """Compare the archive with the mirror's .md5sum; True where the mirror has none."""
    try:
        path, _ = _download_beside(source, mirror, day, ".md5sum")
    except DownloadFailed:
        return True
    digest = path.read_bytes().split()[:1]
    return digest == [digests_of(archive.stream, "md5")["md5"].encode()]


def _download_beside(
    source: Source, mirror: str, day: date, suffix: str
) -> tuple[Path, datetime | None]:
    """Download a small file that is beside the archive; returns its path and modification time."""
    path = source.downloads / f"{_stem(source, day)}.tar.xz{suffix}"
    result = download([_url(source, mirror, day) + suffix], path, limit=_SMALL_LIMIT)
    return path, result.modified


def _url(source: Source, mirror: str, day: date) -> str:
    return f"{mirror.rstrip('/')}/snapshots/{_stem(source, day)}.tar.xz"


def _stem(source: Source, day: date) -> str:
    return f"{source.name}-{day:%Y%m%d}"
