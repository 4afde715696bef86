"""State of an incomplete download, in a hidden file beside it.

`.NAME.partial` is written before the first byte of NAME and removed after its last one: while
it is there, NAME is a part. A kill at any point leaves a pair that can be continued, or one
that `find` does not take, and then the download starts over.
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

_STRONG = re.compile(r'"[!#-~]{1,200}"')  # W/"..." is a weak one: equal enough, but not the same
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")


@dataclass(frozen=True)
class Partial:
    """The first `size` of `total` bytes of a file, and what tells that file from another."""

    url: str  # that answered, without user and password
    etag: str | None
    modified: datetime | None
    total: int
    size: int

    def asking(self, url: str) -> dict[str, str]:
        """Headers that ask `url` for the rest if it has the same file (RFC 9110, 13.1.5).

        An ETag means something to the server that gave it only; mirrors are copies that keep
        the date. Empty: nothing is known that this server could compare.
        """
        same = self.etag if url == self.url else None
        if same is None and self.modified is not None:
            same = format_datetime(self.modified, usegmt=True)
        return {"Range": f"bytes={self.size}-", "If-Range": same} if same else {}

    def continued_by(self, status: int, headers: Mapping[str, str]) -> bool:
        """True if an answer's body continues this file after its first `size` bytes."""
        found = _RANGE.fullmatch(headers.get("Content-Range", ""))
        return (
            status == 206
            and found is not None
            and (int(found[1]), int(found[2])) == (self.size, self.total)
            and date_of(headers, "Last-Modified") in (None, self.modified)
        )


def begin(target: Path, url: str, headers: Mapping[str, str], total: int | None) -> None:
    """Make room for a new file, and keep what its answer says of it: `total` bytes if known."""
    target.unlink(missing_ok=True)  # before: what is noted must not be taken for the old bytes'
    modified = date_of(headers, "Last-Modified")
    said = {
        "url": url,
        "etag": _strong(headers.get("ETag")),
        "modified": format_datetime(modified, usegmt=True) if modified else None,
        "total": total,
    }
    write_atomic(_beside(target), json.dumps(said, indent=1) + "\n", mode=0o600)


def find(target: Path, limit: int) -> Partial | None:
    """The part of a file of at most `limit` bytes that can be continued; None: start over."""
    try:
        status = target.lstat()
        said = json.loads(_beside(target).read_bytes())
        url, total = said["url"], said["total"]
        part = Partial(url, _strong(said["etag"]), date_of(said, "modified"), total, status.st_size)
        fits = (
            isinstance(url, str)
            and type(total) is int
            and 0 < part.size < total <= limit
            and stat.S_ISREG(status.st_mode)
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return part if fits and (part.etag or part.modified) else None


def whole(target: Path) -> bool:
    """True if a download to `target` is complete, in this run or an earlier one."""
    return target.is_file() and not target.is_symlink() and not _beside(target).exists()


def complete(target: Path) -> None:
    """The last byte is there."""
    _beside(target).unlink(missing_ok=True)


def discard(target: Path) -> None:
    """Delete the file and what is known of it; at no point is a part left that looks whole."""
    target.unlink(missing_ok=True)
    _beside(target).unlink(missing_ok=True)


def date_of(headers: Mapping[str, str], name: str) -> datetime | None:
    """A date that a header holds, in UTC; None when it is absent or no date."""
    try:
        found = parsedate_to_datetime(headers[name])
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    # whoever reads dates so leniently has surprises for hostile ones
    except (LookupError, ValueError, TypeError, OverflowError, AttributeError):
        return None


def _strong(etag: str | None) -> str | None:
    return etag if etag is not None and _STRONG.fullmatch(etag) else None


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")
