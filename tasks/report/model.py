"""The report of a site, as data. `doit status --json` prints these fields (docs/operate.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.causes import Reason
from tasks.system.notes import Note

VERSION = 2


@dataclass(frozen=True)
class Holder:
    """The process that holds a task's lock, and since when (text of its lock file)."""

    process: int
    since: str


@dataclass(frozen=True)
class LockReport:
    """The pins of config.lock; `age_days` is that of the tree's day, None where it is no day."""

    tree: str
    commit: str
    age_days: int | None
    overlays: Mapping[str, str]
    seeds: Mapping[str, str]


@dataclass(frozen=True)
class ChrootReport:
    """The state of a chroot and its artifacts: `fresh`, `stale`, `failed` or `building`.

    `task` is the first one that is not fresh, `reason` why it would run. `modified`: by hand, or
    made on one that was.
    """

    state: str
    task: str | None = None
    reason: Reason | None = None
    holder: Holder | None = None
    modified: bool = False


@dataclass(frozen=True)
class RunReport:
    """The newest run: its outcome in one word, that of each task, and its times (epoch seconds)."""

    name: str
    logs: str
    outcome: str
    tasks: Mapping[str, str]
    started: int | None
    ended: int | None


@dataclass(frozen=True)
class BinhostReport:
    """The generations of a binhost; `held`: a rollback is current, its newer set unchanged."""

    current: int | None
    kept: tuple[int, ...]
    held: bool


@dataclass(frozen=True)
class DiskReport:
    """Bytes below each part of state/; not `complete` where some could not be read."""

    parts: Mapping[str, int]
    complete: bool

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class SiteReport:
    """Everything that there is to know about a site at one moment.

    `tasks` has the reason of each artifact that would run, None of a fresh one.
    """

    lock: LockReport | None
    updates: tuple[Note, ...]
    chroots: Mapping[str, ChrootReport]
    tasks: Mapping[str, Reason | None]
    last_run: RunReport | None
    binhosts: Mapping[str, BinhostReport]
    disk: DiskReport
    problems: tuple[str, ...]
