"""FrozenDay days, read from the tags of the tree repository.

A tag's message has what later snapshots are compared with: the time inside, the archive's digest
and its signer.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.errors import BinmillError
from tasks.system.git import bare, explained

_DAY_SECONDS = 86400
_TAG = re.compile(r"[0-9]{8}")
_FIELDS = "%(objecttype) %(*objecttype) %(*objectname)%0a%(contents)"  # git-for-each-ref(1)
_COMMIT = re.compile("tag commit ([0-9a-f]{40})")


@dataclass(frozen=True)
class FrozenDay:
    """A frozen day: its commit, the time inside (epoch), digest and signer of the archive."""

    tag: str
    commit: str
    timestamp: int
    sha512: str
    signer: str


def tag_of(timestamp: int) -> str:
    """The tag of a snapshot made at `timestamp`: the day before, as it is made at 00:45 UTC."""
    return datetime.fromtimestamp(timestamp - _DAY_SECONDS, UTC).strftime("%Y%m%d")


def tags(repository: Path) -> list[str]:
    """List the frozen days, oldest first."""
    if not (repository / "HEAD").exists():
        return []
    with explained("tags-unreadable", repository, path=repository):
        return sorted(t.name for t in bare(repository).tags if _TAG.fullmatch(t.name))


def require(tag: str, days: list[str]) -> str:
    """Return `tag` if it is one of the frozen `days`; raises BinmillError that suggests one."""
    if tag in days:
        return tag
    newest_days = days[-5:]
    near = difflib.get_close_matches(tag, days, n=1, cutoff=0.6)
    if near:
        raise BinmillError("day-misspelt", day=tag, suggestion=near[0], newest=newest_days)
    raise BinmillError("day-not-frozen", day=tag, newest=newest_days)


def newest(repository: Path) -> FrozenDay | None:
    """Read the newest frozen day; None where no day is frozen."""
    days = tags(repository)
    return read(repository, days[-1]) if days else None


def read(repository: Path, tag: str) -> FrozenDay | None:
    """Read a frozen day from its tag; None where there is no such tag."""
    if not (repository / "HEAD").exists() or not _TAG.fullmatch(tag):
        return None
    with explained("tag-unreadable", repository, path=repository, tag=tag):
        output = str(bare(repository).git.for_each_ref(f"refs/tags/{tag}", format=_FIELDS))
    if not output:
        if tag in tags(repository):  # git skips a reference whose content is damaged
            raise BinmillError("tag-damaged", path=repository, tag=tag)
        return None
    target, _, message = output.partition("\n")
    fields = dict(line.split(": ", 1) for line in message.splitlines() if ": " in line)
    commit = _COMMIT.fullmatch(target)
    with contextlib.suppress(KeyError, ValueError):
        if commit:
            time = int(fields["timestamp"])
            return FrozenDay(tag, commit[1], time, fields["sha512"], fields["signer"])
    raise BinmillError("tag-foreign", path=repository, tag=tag)
