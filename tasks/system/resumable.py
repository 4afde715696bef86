"""State of an incomplete download, in a hidden file beside it.

`.NAME.partial` is written before the first byte of NAME and deleted after its last one: while it
is there, NAME is a part. A kill at any point leaves a pair that can be continued, or one that
`find` refuses, and then the download starts over.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

from tasks.system.files import write_atomic

_STRONG = re.compile(r'"[!#-~]{1,200}"')  # W/"..." is a weak one: equivalent content, other bytes
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


@dataclass(frozen=True)
class Partial:
    """The first `size` of `total` bytes of a file, and what identifies that file."""

    url: str  # of the server, without user and password
    etag: str | None
    modified: datetime | None
    total: int
    size: int

    def asking(self, url: str) -> dict[str, str]:
        """Build headers that request the rest of the same file from `url` (RFC 9110, 13.1.5).

        An ETag is valid only for the server that sent it; mirrors are copies with the same date.
        Empty: there is nothing that this server could compare.
        """
        same = self.etag if url == self.url else None
        if same is None and self.modified is not None:
            same = format_datetime(self.modified, usegmt=True)
        return {"Range": f"bytes={self.size}-", "If-Range": same} if same else {}

    def continued_by(self, status: int, headers: Mapping[str, str]) -> bool:
        """True if an answer's body continues this file after its first `size` bytes."""
        match = _RANGE.fullmatch(headers.get("Content-Range", ""))
        return (
            status == 206
            and match is not None
            and (int(match[1]), int(match[2])) == (self.size, self.total)
            and date_of(headers, "Last-Modified") in (None, self.modified)
        )


def begin(target: Path, url: str, headers: Mapping[str, str], total: int | None) -> None:
    """Delete the old file, and note what the answer says of the new one: `total` bytes if known."""
    target.unlink(missing_ok=True)  # first: the note must not be taken for one on the old bytes
    modified = date_of(headers, "Last-Modified")
    note = {
        "url": url,
        "etag": _strong(headers.get("ETag")),
        "modified": format_datetime(modified, usegmt=True) if modified else None,
        "total": total,
    }
    write_atomic(_beside(target), json.dumps(note, indent=1) + "\n", mode=0o600)


def find(target: Path, limit: int) -> Partial | None:
    """Return the part of a file, at most `limit` bytes, that can be resumed; None: start over."""
    try:
        status = target.lstat()
        note = json.loads(_beside(target).read_bytes())
        url, total = note["url"], note["total"]
        part = Partial(url, _strong(note["etag"]), date_of(note, "modified"), total, status.st_size)
        fits = (
            isinstance(url, str)
            and type(total) is int
            and 0 < part.size < total <= limit
            and stat.S_ISREG(status.st_mode)
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return part if fits and (part.etag or part.modified) else None


def is_complete(target: Path) -> bool:
    """True if a download to `target` is complete, in this run or an earlier one."""
    return target.is_file() and not target.is_symlink() and not _beside(target).exists()


def complete(target: Path) -> None:
    """Mark a file as complete."""
    _beside(target).unlink(missing_ok=True)


def discard(target: Path) -> None:
    """Delete the file and its note; at no point is a part left that looks complete."""
    target.unlink(missing_ok=True)
    _beside(target).unlink(missing_ok=True)


def date_of(headers: Mapping[str, str], name: str) -> datetime | None:
    """Parse the date in a header, in UTC; None when it is absent or no date."""
    try:
        date = parsedate_to_datetime(headers[name])
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    # so lenient a parser raises many errors for hostile dates
    except (LookupError, ValueError, TypeError, OverflowError, AttributeError):
        return None


def _strong(etag: str | None) -> str | None:
    return etag if etag is not None and _STRONG.fullmatch(etag) else None


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")
