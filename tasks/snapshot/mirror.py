"""Which snapshots the mirrors have, and a verified copy of one.

Layout of a mirror: MIRROR/snapshots/gentoo-YYYYMMDD.tar.xz with a detached signature in
.gpgsig and a transport check in .md5sum beside it (emerge-webrsync(1)). The signature does not
cover the file's name, so the name decides nothing but what is asked for; see freeze.py for what
does.
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
from tasks.system.http import Missing, download, public
from tasks.system.resumable import discard
from tasks.system.terminal import say

_SMALL_LIMIT = 1 << 16
_TARBALL_LIMIT = 4 << 30

Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Source:
    """Where snapshots called `name` come from, and whose signature they must have.

    Archives are downloaded to `downloads`, where a later run can go on with half of one.
    """

    mirrors: tuple[str, ...]
    name: str
    role: Role
    downloads: Path


@dataclass(frozen=True)
class Tarball:
    """A snapshot's archive whose signature was accepted, open: the bytes that were verified.

    `url` is where it came from; the file at `path` may be another one by now.
    """

    path: Path
    stream: BinaryIO
    url: str
    sha512: str
    signature: Signature

    def digest(self) -> str:
        """The SHA-512 of the open file as it is now."""
        return digests_of(self.stream, "sha512")["sha512"]


def take(source: Source, day: date, accept: Callable[[Tarball], Taken]) -> Taken:
    """What `accept` makes of a day's archive, of the first mirror whose archive it accepts.

    A mirror that gives nothing, or nothing trustworthy, is passed over for the next one; one
    whose .md5sum does not fit is put off until all others were asked. Raises Missing when no
    mirror has that day, NotTrusted when one was refused, DownloadFailed when none can be asked.
    """
    refusals: list[BinmillError] = []
    doubtful: list[str] = []
    for mirror in itertools.chain(source.mirrors, doubtful):  # grows while the first are asked
        try:
            with _fetched(source, mirror, day) as tarball:
                if mirror in doubtful or _md5_fits(source, mirror, day, tarball):
                    taken = accept(tarball)
                    for refused in refusals:
                        if isinstance(refused, NotTrusted):
                            say(f"  passed over: {refused.message}")
                    return taken
                say(
                    f"  {public(mirror)}: the .md5sum beside {tarball.path.name} does not fit; "
                    "asking another mirror"
                )
                doubtful.append(mirror)
        except (NotTrusted, DownloadFailed) as failed:
            refusals.append(failed)
    worst: type[BinmillError] = DownloadFailed
    for kind in (Missing, NotTrusted):
        if any(isinstance(each, kind) for each in refusals):
            worst = kind
    hint = next(each.hint for each in refusals if isinstance(each, worst))
    raise worst("; ".join(each.message for each in refusals), hint)


def seen(source: Source, day: date) -> datetime | None:
    """When a mirror says that it got that day's snapshot (UTC); None where none says so.

    Nobody vouches for it: it tells a person how far behind a mirror is.
    """
    for mirror in source.mirrors:
        with contextlib.suppress(DownloadFailed), _swept(source, day):
            return _beside(source, mirror, day, ".gpgsig")[1]
    return None


@contextlib.contextmanager
def _fetched(source: Source, mirror: str, day: date) -> Iterator[Tarball]:
    """One mirror's archive for the length of the block, once its signature was accepted."""
    archive = source.downloads / f"{_stem(source, day)}.tar.xz"
    with _swept(source, day):
        signature, _ = _beside(source, mirror, day, ".gpgsig")  # small: most mirrors lack the day
        got = download([_url(source, mirror, day)], archive, limit=_TARBALL_LIMIT)
        if got.mixed and not _good(source, archive, signature):
            discard(archive)  # half of it came from elsewhere: this mirror is not to blame yet
            got = download([_url(source, mirror, day)], archive, limit=_TARBALL_LIMIT)
        try:
            with archive.open("rb") as stream:
                digest = digests_of(stream, "sha512")["sha512"]
                try:
                    signed = verify_detached(source.role, stream, archive.name, signature)
                    yield Tarball(archive, stream, got.url, digest, signed)
                except NotTrusted as bad:
                    raise NotTrusted(f"{public(mirror)}: {bad.message}", bad.hint) from bad
        finally:  # nobody must go on with what was refused
            discard(archive)


@contextlib.contextmanager
def _swept(source: Source, day: date) -> Iterator[None]:
    """Leave none of the small files behind; half an archive stays, for a later run."""
    try:
        yield
    finally:
        for suffix in (".gpgsig", ".md5sum"):
            discard(source.downloads / f"{_stem(source, day)}.tar.xz{suffix}")


def _good(source: Source, archive: Path, signature: Path) -> bool:
    try:
        with archive.open("rb") as stream:
            verify_detached(source.role, stream, archive.name, signature)
    except NotTrusted:
        return False
    return True


def _md5_fits(source: Source, mirror: str, day: date, tarball: Tarball) -> bool:
    try:
        beside, _ = _beside(source, mirror, day, ".md5sum")
    except DownloadFailed:
        return True
    said = beside.read_bytes().split()[:1]
    return said == [digests_of(tarball.stream, "md5")["md5"].encode()]


def _beside(source: Source, mirror: str, day: date, suffix: str) -> tuple[Path, datetime | None]:
    path = source.downloads / f"{_stem(source, day)}.tar.xz{suffix}"
    got = download([_url(source, mirror, day) + suffix], path, limit=_SMALL_LIMIT)
    return path, got.modified


def _url(source: Source, mirror: str, day: date) -> str:
    return f"{mirror.rstrip('/')}/snapshots/{_stem(source, day)}.tar.xz"


def _stem(source: Source, day: date) -> str:
    return f"{source.name}-{day:%Y%m%d}"
