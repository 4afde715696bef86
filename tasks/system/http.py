"""The one way to download: from mirrors in order, capped, continued, into a private file.

Nothing that arrives here is trusted yet; the caller verifies it before it gets a final name.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial as call
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tasks.errors import DownloadFailed
from tasks.system import resumable
from tasks.system.deadline import within
from tasks.system.network_errors import explained
from tasks.system.resumable import Partial, date_of
from tasks.system.terminal import Progress, say

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


class Missing(DownloadFailed):
    """The mirrors were reached, and none of them has the file."""


class _Again(DownloadFailed):
    """The same URL may give it in a moment: after `pause` seconds, if it said how many."""

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


@dataclass(frozen=True)
class Got:
    """Which of the URLs gave the file, and its Last-Modified (UTC; None: absent or no date).

    `mixed`: the file began at another URL. If it is refused then, any of them may have lied;
    this one, asked alone and from the start, may still have the right bytes.
    """

    url: str
    modified: datetime | None
    mixed: bool = False


@dataclass(frozen=True)
class _Wanted:
    """What one URL is asked for: at most `limit` bytes, until `deadline` (time.monotonic)."""

    url: str
    target: Path
    limit: int
    deadline: float


def download(urls: Sequence[str], target: Path, *, limit: int) -> Got:
    """Fetch a file of at most `limit` bytes from the first of `urls` that gives it whole.

    The file at `target` is private to the caller and may be anything at all; a caller who
    refuses it deletes it. What broke off is continued at the next URL, or by the next call for
    the same `target`, in this process or a later one: see partial.py for what is left behind
    until then. A missing directory is made, for its owner only. Raises Missing when every
    mirror says 404 or 410, DownloadFailed otherwise.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    reasons: list[str] = []
    absent = 0
    for url in urls:
        try:
            return _insist(_Wanted(url, target, limit, time.monotonic() + _TOTAL_SECONDS))
        except DownloadFailed as failed:
            absent += isinstance(failed, Missing)
            reasons.append(f"{public(url)}: {failed.message}")
        if resumable.find(target, limit) is None:
            resumable.discard(target)
    kind = Missing if absent == len(urls) else DownloadFailed
    name = public(urls[0]).rsplit("/", 1)[-1] if urls else target.name
    raise kind(
        f"no mirror gave {name}: " + "; ".join(reasons),
        "check the network and config.toml [mirrors], then run the same command again",
    )


def public(url: str) -> str:
    """A URL, or a text with one, without the user and password that may stand in it."""
    return re.sub(r"//[^/]*@", "//", url)


def use_proxy(proxy: str | None, no_proxy: Sequence[str] = ()) -> None:
    """Let downloads, git and every program started here use `proxy`, except for `no_proxy`.

    None leaves the caller's environment as it is, and that counts.
    """
    if proxy is None:
        return
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)
    os.environ["http_proxy"] = os.environ["https_proxy"] = proxy
    if no_proxy:
        os.environ["no_proxy"] = ",".join(no_proxy)


def _insist(wanted: _Wanted) -> Got:
    """One URL, asked again a little later where that may help."""
    for own_pause in _PAUSES:
        try:
            return _attempt(wanted)
        except _Again as failed:
            asked = own_pause if failed.pause is None else failed.pause
        pause = min(max(asked, 0.0), _LONGEST_PAUSE)
        if pause > _SILENT_PAUSE:
            say(f"  {urlsplit(wanted.url).hostname} asks to wait {pause:.0f} s")
        time.sleep(pause)
    return _attempt(wanted)


def _attempt(wanted: _Wanted) -> Got:
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
            return None  # requests would read a redirect's body into memory, without a limit

    url, part = wanted.url, resumable.find(wanted.target, wanted.limit)
    with Session() as session:
        for _ in range(_REDIRECTS + 1):
            rest = part.asking(public(url)) if part else {}
            with _ask(session, url, rest) as answer:
                if answer.is_redirect:
                    url = _onward(url, answer.headers["Location"])
                elif got := _take(wanted, answer, public(url), part if rest else None):
                    return got
                else:
                    part = None
    raise DownloadFailed(f"it redirects more than {_REDIRECTS} times")


def _ask(session: Any, url: str, headers: dict[str, str]) -> Any:
    from urllib3.exceptions import HTTPError

    around = sys.exc_info()[1]
    late = DownloadFailed(f"too slow (no answer within {_HEADER_SECONDS} s)")
    ask = call(
        session.get,
        url,
        stream=True,
        timeout=(_CONNECT_SECONDS, _IDLE_SECONDS),
        headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers},
    )
    try:
        return within(_HEADER_SECONDS, ask, late)
    # not all that a hostile server can provoke is a RequestException, which is an OSError
    except (OSError, HTTPError, ValueError) as error:
        raise DownloadFailed(public(explained(error, around))) from error


def _onward(url: str, location: str) -> str:
    try:
        there = urljoin(url, location)
        leaves = urlsplit(url).scheme == "https" and urlsplit(there).scheme != "https"
    except ValueError as error:
        raise DownloadFailed("it redirects to what is no URL") from error
    if leaves:
        raise DownloadFailed("it redirects from https to http")
    return there


def _take(wanted: _Wanted, answer: Any, url: str, part: Partial | None) -> Got | None:
    """Save the body, behind `part` if it continues that; None: the whole file must be asked for."""
    status, headers = answer.status_code, answer.headers
    if status in (404, 410):
        raise Missing(f"HTTP {status}")
    if status in _BUSY:
        raise _Again(f"HTTP {status}", _pause(headers))
    modified = date_of(headers, "Last-Modified")
    if part and part.continued_by(status, headers):
        _save(wanted, answer, part.size, part.total)
        return Got(wanted.url, modified or part.modified, mixed=url != part.url)
    if part and status in (206, 416):
        return None
    if status != 200:
        raise DownloadFailed(f"HTTP {status}")
    length = headers.get("Content-Length", "")
    total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    if total is not None and total > wanted.limit:
        raise DownloadFailed(f"too large ({total} bytes, at most {wanted.limit} are taken)")
    resumable.begin(wanted.target, url, headers, total)
    _save(wanted, answer, 0, total)
    return Got(wanted.url, modified)


def _pause(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds: a number, or a date (RFC 9110, 10.2.3)."""
    if re.fullmatch(r"[0-9]{1,9}", headers.get("Retry-After", "")):
        return float(headers["Retry-After"])
    until = date_of(headers, "Retry-After")
    return (until - datetime.now(UTC)).total_seconds() if until else None


def _save(wanted: _Wanted, answer: Any, start: int, total: int | None) -> None:
    """Write the body behind the first `start` bytes; the whole file has `total`, if known."""
    most = wanted.limit if total is None else total
    received = start
    with wanted.target.open("ab") as stream, Progress(wanted.target.name, total, start) as bar:
        for chunk in _chunks(answer, wanted.deadline):
            received += len(chunk)
            if received > most:
                resumable.discard(wanted.target)
                raise DownloadFailed(f"too large (more than {most} bytes)")
            stream.write(chunk)
            bar.advance(len(chunk))
        if total is not None and received != total:
            raise _Again(f"ended after {received} of {total} bytes")
    resumable.complete(wanted.target)


def _chunks(answer: Any, deadline: float) -> Iterator[bytes]:
    """The body as it comes, if it does not come too slowly."""
    from urllib3.exceptions import HTTPError, ProtocolError, SSLError

    around = sys.exc_info()[1]
    start, count = time.monotonic(), 0
    while True:
        try:
            # read1 returns what has come; read would wait for a whole chunk, however slow it drips
            read = call(answer.raw.read1, _CHUNK)
            chunk = within(_IDLE_SECONDS, read, DownloadFailed("too slow"))
        except HTTPError as error:
            broken = isinstance(error, ProtocolError | SSLError)
            kind = _Again if broken else DownloadFailed
            raise kind(public(explained(error, around))) from error
        if not chunk:
            return
        yield chunk
        now, count = time.monotonic(), count + len(chunk)
        if now > deadline:
            raise DownloadFailed(f"too slow (it took more than {_TOTAL_SECONDS // 3600} hours)")
        if now - start > _IDLE_SECONDS:
            if count / (now - start) < _MINIMUM_RATE:
                raise DownloadFailed("too slow")
            start, count = now, 0
