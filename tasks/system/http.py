"""The one way to download: from mirrors in order, capped, into a private file.

Nothing that arrives here is trusted yet; the caller verifies it before it gets a final name.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from tasks.errors import DownloadFailed
from tasks.system.terminal import Progress

_CONNECT_SECONDS = 20
_IDLE_SECONDS = 60
_MINIMUM_RATE = 1024  # bytes per second, over a window of _IDLE_SECONDS
_CHUNK = 1 << 18
_AGENT = "binmill/0.1"
_REDIRECTS = 10


class Missing(DownloadFailed):
    """The mirrors were reached, and none of them has the file."""


def download(urls: Sequence[str], target: Path, *, limit: int) -> str:
    """Fetch the first of `urls` that answers into `target`; returns the URL it came from.

    `limit` caps the size in bytes. The file at `target` is private to the caller and may be
    anything at all. Raises Missing when every mirror says 404, DownloadFailed otherwise.
    """
    reasons: list[str] = []
    absent = 0
    for url in urls:
        try:
            _fetch(url, target, limit)
        except Missing as gone:
            absent += 1
            reasons.append(f"{_public(url)}: {gone.message}")
        except DownloadFailed as failed:
            reasons.append(f"{_public(url)}: {failed.message}")
        else:
            return url
        target.unlink(missing_ok=True)
    kind = Missing if absent == len(urls) else DownloadFailed
    name = urls[0].rsplit("/", 1)[-1] if urls else target.name
    raise kind(
        f"no mirror gave {name}: " + "; ".join(reasons),
        "check the network and config.toml [mirrors], then run the same command again",
    )


def _fetch(url: str, target: Path, limit: int) -> None:
    import requests
    from urllib3.exceptions import HTTPError

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
            return None  # requests would read a redirect's body into memory, without a limit

    around = sys.exc_info()[1]
    try:
        with Session() as session:
            for _ in range(_REDIRECTS + 1):
                with session.get(
                    url,
                    stream=True,
                    timeout=(_CONNECT_SECONDS, _IDLE_SECONDS),
                    headers={"User-Agent": _AGENT, "Accept-Encoding": "identity"},
                ) as answer:
                    if not answer.is_redirect:
                        _take(answer, target, limit)
                        return
                    onward = urljoin(url, answer.headers["Location"])
                if url.startswith("https:") and not onward.startswith("https:"):
                    raise DownloadFailed("it redirects from https to http")
                url = onward
        raise DownloadFailed(f"it redirects more than {_REDIRECTS} times")
    # not all that a hostile server can provoke is a RequestException
    except (requests.RequestException, HTTPError, ValueError) as error:
        raise DownloadFailed(_reason(error, around)) from error


def _take(answer: Any, target: Path, limit: int) -> None:
    if answer.status_code in (404, 410):
        raise Missing(f"HTTP {answer.status_code}")
    if answer.status_code != 200:
        raise DownloadFailed(f"HTTP {answer.status_code}")
    _save(answer, target, limit)


def _save(answer: Any, target: Path, limit: int) -> None:
    announced = answer.headers.get("Content-Length", "")
    total = int(announced) if re.fullmatch(r"[0-9]{1,18}", announced) else None
    if total is not None and total > limit:
        raise DownloadFailed(f"too large ({total} bytes, at most {limit} are taken)")
    received = 0
    window_start, window_bytes = time.monotonic(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as stream, Progress(target.name, total) as progress:
        # read1 returns what has come; read would wait for a whole chunk, however slow it drips
        while chunk := answer.raw.read1(_CHUNK):
            received += len(chunk)
            if received > limit:
                raise DownloadFailed(f"too large (more than {limit} bytes)")
            stream.write(chunk)
            progress.advance(len(chunk))
            elapsed = time.monotonic() - window_start
            if elapsed > _IDLE_SECONDS:
                if (received - window_bytes) / elapsed < _MINIMUM_RATE:
                    raise DownloadFailed("too slow")
                window_start, window_bytes = time.monotonic(), received
    if total is not None and received != total:
        raise DownloadFailed(f"ended after {received} of {total} bytes")


def _public(url: str) -> str:
    """A URL without the user and password that may stand in it."""
    return re.sub(r"//[^/]*@", "//", url)


def _reason(error: BaseException, around: BaseException | None = None) -> str:
    """The innermost cause, on one line, without object addresses or passwords.

    `around` is the exception that the caller was handling, if any: no cause of this one.
    """
    from http.client import HTTPException

    cause = error
    # what lies below an HTTPException is how http.client found out: int() of a chunk's length
    while not isinstance(cause, HTTPException):
        inner = cause.__cause__ or cause.__context__
        if inner is None or inner is around:
            break
        cause = inner
    said = str(getattr(cause, "strerror", None) or str(cause).split(">: ")[-1])
    return _public(" ".join(said.split()))[:300] or type(cause).__name__
