"""Which snapshots the mirrors have, and a verified copy of one.

Layout of a mirror: MIRROR/snapshots/gentoo-YYYYMMDD.tar.xz with a detached signature in
.gpgsig beside it (emerge-webrsync(1)). The signature does not cover the file's name, so the
name decides nothing but what is asked for; see freeze.py for what does.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from tasks.errors import BinmillError, DownloadFailed, NotTrusted
from tasks.system.files import sha512
from tasks.system.gpgv import Role, Signature, verify_detached
from tasks.system.http import Missing, download

_SIGNATURE_LIMIT = 1 << 16
_TARBALL_LIMIT = 4 << 30


@dataclass(frozen=True)
class Tarball:
    """A snapshot's archive whose signature was accepted; `url` is where it came from."""

    path: Path
    url: str
    sha512: str
    signature: Signature


def newest_day(
    mirrors: tuple[str, ...], name: str, days: Iterator[date], scratch: Path
) -> date | None:
    """The first of `days` for which a mirror has a signature; None when there is none.

    Raises DownloadFailed when no mirror can be asked at all.
    """
    for day in days:
        lost: list[DownloadFailed] = []
        for mirror in mirrors:
            try:
                _signature(mirror, name, day, scratch)
            except Missing:
                continue
            except DownloadFailed as failed:
                lost.append(failed)
            else:
                return day
        if len(lost) == len(mirrors):
            raise DownloadFailed("; ".join(each.message for each in lost), lost[-1].hint)
    return None


def days_back(newest: date, count: int) -> Iterator[date]:
    """`count` days, the newest first."""
    return (newest - timedelta(days=back) for back in range(count))


@contextlib.contextmanager
def fetched(
    mirrors: tuple[str, ...], name: str, day: date, role: Role, scratch: Path
) -> Iterator[Tarball]:
    """A verified archive for the length of the block; raises NotTrusted or DownloadFailed.

    Each mirror that gives nothing, or something untrustworthy, is passed over for the next one.
    """
    refusals: list[BinmillError] = []
    archive = scratch / f"{_stem(name, day)}.tar.xz"
    try:
        for mirror in mirrors:
            try:
                url = download([_url(mirror, name, day)], archive, limit=_TARBALL_LIMIT)
                signature = verify_detached(role, archive, _signature(mirror, name, day, scratch))
            except NotTrusted as refused:
                public = re.sub(r"//[^/]*@", "//", mirror)
                refusals.append(NotTrusted(f"{public}: {refused.message}", refused.hint))
            except DownloadFailed as failed:
                refusals.append(failed)
            else:
                break
        else:
            worst = next((r for r in refusals if isinstance(r, NotTrusted)), refusals[-1])
            raise type(worst)("; ".join(r.message for r in refusals), worst.hint)
        yield Tarball(archive, url, sha512(archive), signature)
    finally:
        archive.unlink(missing_ok=True)


def _signature(mirror: str, name: str, day: date, scratch: Path) -> Path:
    path = scratch / f"{_stem(name, day)}.tar.xz.gpgsig"
    download([_url(mirror, name, day) + ".gpgsig"], path, limit=_SIGNATURE_LIMIT)
    return path


def _url(mirror: str, name: str, day: date) -> str:
    return f"{mirror.rstrip('/')}/snapshots/{_stem(name, day)}.tar.xz"


def _stem(name: str, day: date) -> str:
    return f"{name}-{day:%Y%m%d}"
