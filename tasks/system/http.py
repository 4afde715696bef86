"""The one way to download: from mirrors in order, capped, continued, into a private file.

Nothing that arrives here is trusted yet; the caller verifies it before it gets a final name.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from tasks import clock
from tasks.errors import DownloadFailed
from tasks.system import resumable
from tasks.system.deadline import DeadlinePassed
from tasks.system.network_errors import explain
from tasks.system.notes import note
from tasks.system.progress import Progress
from tasks.system.proxy import proxies
from tasks.system.resumable import Partial, date_of
from tasks.text import without_password

if TYPE_CHECKING:
    from tasks.system.http_session import Session

_CONNECT_SECONDS = 20
_HEADER_SECONDS = 60  # from the request to the end of the answer's headers, whatever drips
_IDLE_SECONDS = 60
_TOTAL_SECONDS = 6 * 3600  # for one URL, with all its attempts
_MINIMUM_RATE = 1024  # bytes per second, over a window of _IDLE_SECONDS
_CHUNK = 1 << 18
_AGENT = "binmill/0.1"
_REDIRECTS = 10
_BUSY = (429, 502, 503, 504)
_PAUSES = (1.0, 2.0)  # seconds before another attempt, where the server does not name them
_LONGEST_PAUSE = 30.0
_SILENT_PAUSE = 3.0


class NotOnMirrors(DownloadFailed):
    """The mirrors answered, and none of them has the file."""


class _TryAgain(Exception):
    """A failure that may pass: after `pause` seconds, if the server said how many."""

    def __init__(self, failure: DownloadFailed, pause: float | None = None) -> None:
        super().__init__(failure)
        self.failure, self.pause = failure, pause


@dataclass(frozen=True)
class Download:
    """The URL that delivered the file, and its Last-Modified (UTC; None: absent or no date).

    `mixed`: the file began at another URL. If it is refused then, either of them may have sent
    wrong bytes; this one alone, from the start, may still deliver the right ones.
    """

    url: str
    modified: datetime | None
    mixed: bool = False


@dataclass(frozen=True)
class _Request:
    """A file to fetch from one URL: at most `limit` bytes, until `end` (time.monotonic)."""

    url: str
    target: Path
    limit: int
    end: float


def download(urls: Sequence[str], target: Path, *, limit: int) -> Download:
    """Fetch a file of at most `limit` bytes from the first of `urls` that delivers all of it.

    The file at `target` is private to the caller and may have any content; a caller who refuses
    it deletes it. An interrupted download is continued at the next URL, or by the next call for
    the same `target`, in this process or a later one: see resumable.py for what is left until
    then. A missing directory is created, for its owner only. Raises NotOnMirrors when every mirror
    says 404 or 410, DownloadFailed otherwise.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    reasons: list[str] = []
    codes: list[str] = []
    for url in urls:
        try:
            return _fetch(_Request(url, target, limit, time.monotonic() + _TOTAL_SECONDS))
        except DownloadFailed as error:
            codes.append(error.code)
            reasons.append(f"{without_password(url)}: {error.message}")
        if resumable.find(target, limit) is None:
            resumable.discard(target)
    name = without_password(urls[0]).rsplit("/", 1)[-1] if urls else target.name
    fields = {"file": name, "reasons": reasons, "codes": codes}
    if set(codes) <= {"mirror-lacks-file"}:
        raise NotOnMirrors("not-on-mirrors", **fields)
    raise DownloadFailed("download-failed", **fields)


def _fetch(request: _Request) -> Download:
    """Fetch from one URL, with pauses and further attempts where these may help."""
    for own_pause in _PAUSES:
        try:
            return _attempt(request)
        except _TryAgain as retry:
            seconds = own_pause if retry.pause is None else retry.pause
        pause = min(max(seconds, 0.0), _LONGEST_PAUSE)
        if pause > _SILENT_PAUSE:
            note("mirror-busy", host=urlsplit(request.url).hostname, seconds=pause)
        time.sleep(pause)
    try:
        return _attempt(request)
    except _TryAgain as retry:
        raise retry.failure from retry


def _attempt(request: _Request) -> Download:
    from tasks.system.http_session import Session

    url, part = request.url, resumable.find(request.target, request.limit)
    with Session() as session:
        for _ in range(_REDIRECTS + 1):
            rest = part.asking(without_password(url)) if part else {}
            with _get(session, url, rest) as answer:
                if answer.is_redirect:
                    url = _redirect_target(url, answer.headers["Location"])
                elif result := _receive(
                    request, session, answer, without_password(url), part if rest else None
                ):
                    return result
                else:
                    part = None
    raise DownloadFailed("mirror-redirects", most=_REDIRECTS)


def _get(session: Session, url: str, headers: dict[str, str]) -> Any:
    from urllib3.exceptions import HTTPError

    around = sys.exc_info()[1]
    try:
        with session.deadline.within(_HEADER_SECONDS):
            return session.get(
                url,
                stream=True,
                timeout=(_CONNECT_SECONDS, _IDLE_SECONDS),
                proxies=proxies(url),
                headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers},
            )
    except DeadlinePassed as late:
        raise DownloadFailed("mirror-silent", seconds=_HEADER_SECONDS) from late
    # not all that a hostile server can provoke is a RequestException, which is an OSError
    except (OSError, HTTPError, ValueError) as error:
        raise explain(error, around) from error


def _redirect_target(url: str, location: str) -> str:
    try:
        there = urljoin(url, location)
        leaves = urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https"
    except ValueError as error:
        raise DownloadFailed("mirror-redirect-invalid") from error
    if leaves:
        raise DownloadFailed("mirror-redirect-insecure")
    return there


def _receive(
    request: _Request, session: Session, answer: Any, url: str, part: Partial | None
) -> Download | None:
    """Save the body, behind `part` if it continues that; None: request the whole file again."""
    status, headers = answer.status_code, answer.headers
    if status in (404, 410):
        raise DownloadFailed("mirror-lacks-file", status=status)
    if status in _BUSY:
        raise _TryAgain(DownloadFailed("mirror-status", status=status), _pause(headers))
    modified = date_of(headers, "Last-Modified")
    if part and part.continued_by(status, headers):
        _save(request, _chunks(request, session, answer), part.size, part.total)
        return Download(request.url, modified or part.modified, mixed=url != part.url)
    if part and status in (206, 416):
        return None
    if status != 200:
        raise DownloadFailed("mirror-status", status=status)
    length = headers.get("Content-Length", "")
    total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    if total is not None and total > request.limit:
        raise DownloadFailed("mirror-file-too-large", size=total, limit=request.limit)
    resumable.begin(request.target, url, headers, total)
    _save(request, _chunks(request, session, answer), 0, total)
    return Download(request.url, modified)


def _pause(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After in seconds: a number, or a date (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"[0-9]{1,9}", headers.get("Retry-After", "")):
        return float(headers["Retry-After"])
    until = date_of(headers, "Retry-After")
    return (until - clock.today()).total_seconds() if until else None


def _save(request: _Request, body: Iterator[bytes], start: int, total: int | None) -> None:
    """Write the body behind the first `start` bytes; the whole file has `total`, if known."""
    most = request.limit if total is None else total
    received = start
    with request.target.open("ab") as stream, Progress(request.target.name, total, start) as bar:
        for chunk in body:
            received += len(chunk)
            if received > most:
                resumable.discard(request.target)
                raise DownloadFailed("mirror-file-endless", limit=most)
            stream.write(chunk)
            bar.advance(len(chunk))
        if total is not None and received != total:
            raise _TryAgain(DownloadFailed("mirror-truncated", received=received, total=total))
    resumable.complete(request.target)


def _chunks(request: _Request, session: Session, answer: Any) -> Iterator[bytes]:
    """Yield the body as it arrives; raises DownloadFailed when it arrives too slowly."""
    from urllib3.exceptions import HTTPError, ProtocolError, SSLError

    around = sys.exc_info()[1]
    start, count = time.monotonic(), 0
    while True:
        try:
            with session.deadline.within(_IDLE_SECONDS):
                # read1 returns what has come; read would wait for a whole chunk, however slow
                chunk = answer.raw.read1(_CHUNK)
        except DeadlinePassed as late:
            raise DownloadFailed("mirror-slow") from late
        except HTTPError as error:
            failure = explain(error, around)
            if isinstance(error, ProtocolError | SSLError):
                raise _TryAgain(failure) from error
            raise failure from error
        if not chunk:
            return
        yield chunk
        now, count = time.monotonic(), count + len(chunk)
        if now > request.end:
            raise DownloadFailed("mirror-takes-too-long", hours=_TOTAL_SECONDS // 3600)
        if now - start > _IDLE_SECONDS:
            if count / (now - start) < _MINIMUM_RATE:
                raise DownloadFailed("mirror-slow")
            start, count = now, 0
