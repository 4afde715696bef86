"""Everything that stays: what the lock, a record, or a kept generation names.

`reachable` is pure; `gather` reads what it decides by. A record or lock that cannot be read is an
error, never "nothing": the results that it names would be deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tasks import lock as lock_file
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.lock import Lock
from tasks.records import Key, earlier
from tasks.site import Site

if TYPE_CHECKING:
    from tasks.chroot.manual_changes import Mark
    from tasks.publish.generation import Source


class Artifact(Protocol):
    """What upkeep knows of a task: its key, and the paths that its record names."""

    @property
    def key(self) -> Key[Any]:
        """The key of its record."""
        ...

    def results_in(self, raw: bytes) -> list[Path]:
        """The paths that a record's text vouches for; raises ValueError for a damaged one."""
        ...

    def owned_in(self, raw: bytes) -> list[Path]:
        """Those that it alone has."""
        ...


Artifacts = Mapping[str, Artifact]  # by task


@dataclass(frozen=True)
class Known:
    """What names results: the lock, the text of records by task (earlier ones too), generations.

    `generations` are the sources of every generation and candidate, by the name of its chroot;
    `manual` are the layers of manual changes.
    """

    lock: Lock | None
    records: tuple[tuple[str, bytes], ...]
    generations: tuple[tuple[str, Source], ...]
    manual: tuple[Mark, ...] = ()


def reachable(layout: Layout, known: Known, artifacts: Artifacts) -> frozenset[Path]:
    """Every path below state/ that something names; raises BinmillError for a damaged record."""
    found: set[Path] = set()
    if known.lock:
        found.add(layout.export(known.lock.tree.commit))
        found |= {layout.export(pin.commit) for pin in known.lock.overlays.values()}
        found |= {layout.seed(pin.sha512) for pin in known.lock.seeds.values()}
    for task, raw in known.records:
        try:
            found |= set(artifacts[task].results_in(raw))
        except ValueError as error:
            raise BinmillError(
                "unreadable-nothing-deleted", what=f"the record of {task}"
            ) from error
    for name, source in known.generations:
        found.add(layout.binpkgs(name) / source.set)
        found |= {layout.export(commit) for commit in source.revisions.values()}
    for mark in known.manual:
        found |= {layout.state / layer for layer in (mark.layer, *mark.over)}
    seeds = layout.seeds
    return frozenset(found | {p.with_name(f"{p.name}.listing") for p in found if p.parent == seeds})


def gather(site: Site, artifacts: Artifacts) -> Known:
    """Read what names results on this site; raises BinmillError where something is damaged."""
    from tasks.chroot import manual_changes
    from tasks.publish import generation

    layout = site.layout
    records: list[tuple[str, bytes]] = []
    for task in artifacts:
        for path in (layout.record(task), earlier(layout, task)):
            if path.exists():
                records.append((task, path.read_bytes()))
    sources = []
    for name in site.config.chroots:
        binhost = layout.binhost(name)
        candidates = generation.numbers(binhost, generation.CANDIDATES)
        for number in (*generation.numbers(binhost), *candidates):
            try:
                sources.append((name, generation.load(binhost, number).source))
            except (OSError, BinmillError) as error:
                raise BinmillError(
                    "unreadable-nothing-deleted", what=f"generation {number} of {name}"
                ) from error
    marks = (manual_changes.read_mark(layout, name) for name in site.config.chroots)
    lock = lock_file.read_or_none(layout)
    return Known(lock, tuple(records), tuple(sources), tuple(filter(None, marks)))
