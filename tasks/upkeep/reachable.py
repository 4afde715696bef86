"""Paths that something needs: those that the lock, a record or a generation names.

`reachable` is pure; `gather` reads its references. A record or lock that cannot be read is an
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
from tasks.records import BINPKGS, Key, earlier, parse
from tasks.site import Site

if TYPE_CHECKING:
    from tasks.chroot.manual_changes import Mark
    from tasks.publish.generation import Source


class Artifact(Protocol):
    """A task's key, and the paths that its record names."""

    @property
    def key(self) -> Key[Any]:
        """The key of its record."""
        ...

    def results_in(self, raw: bytes) -> list[Path]:
        """The paths that a record's text names; raises ValueError if it is damaged."""
        ...

    def owned_in(self, raw: bytes) -> list[Path]:
        """The results of a step that no other artifact has."""
        ...


Artifacts = Mapping[str, Artifact]  # by task


@dataclass(frozen=True)
class References:
    """Everything that names results: the lock, the text of each task's records, generations.

    `generations` are the sources of every generation and candidate, by the name of its chroot;
    `manual` are the layers of manual changes.
    """

    lock: Lock | None
    records: tuple[tuple[str, bytes], ...]
    generations: tuple[tuple[str, Source], ...]
    manual: tuple[Mark, ...] = ()


def reachable(layout: Layout, references: References, artifacts: Artifacts) -> frozenset[Path]:
    """Every path below state/ that something names; raises BinmillError for a damaged record."""
    paths: set[Path] = set()
    lock = references.lock
    if lock:
        paths.add(layout.export(lock.tree.commit))
        paths |= {layout.export(pin.commit) for pin in lock.overlays.values()}
        paths |= {layout.seed(pin.sha512) for pin in lock.seeds.values()}
    for task, raw in references.records:
        try:
            paths |= set(artifacts[task].results_in(raw))
        except ValueError as error:
            raise BinmillError(
                "unreadable-nothing-deleted", what=f"the record of {task}"
            ) from error
    for name, source in references.generations:
        paths.add(layout.binpkgs(name) / source.set)
        paths |= {layout.export(commit) for commit in source.revisions.values()}
    for mark in references.manual:
        paths |= {layout.state / layer for layer in (mark.layer, *mark.over)}
    listings = {p.with_name(f"{p.name}.listing") for p in paths if p.parent == layout.seeds}
    return frozenset(paths | listings)


def packages(references: References) -> frozenset[str]:
    """The SHA-512 of every package of a set that a record names.

    Raises BinmillError for a damaged record.
    """
    digests: set[str] = set()
    for task, raw in references.records:
        kind, _, name = task.partition(":")
        if kind == BINPKGS.name:
            try:
                digests |= {each.sha512 for each in parse(BINPKGS(name), raw).packages}
            except ValueError as error:
                raise BinmillError(
                    "unreadable-nothing-deleted", what=f"the record of {task}"
                ) from error
    return frozenset(digests)


def gather(site: Site, artifacts: Artifacts) -> References:
    """Read the references of a site; raises BinmillError where one is damaged."""
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
    lock, manual = lock_file.read_or_none(layout), tuple(filter(None, marks))
    return References(lock, tuple(records), tuple(sources), manual)
