"""What stays: everything that the lock, a record, or a kept generation names.

One pure function decides; what it is told is gathered here as well. A record or lock that cannot
be read is an error, never "nothing": what it names would be taken for unwanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks import lock as lock_file
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.lock import Lock
from tasks.records import Record
from tasks.site import Site

if TYPE_CHECKING:
    from tasks.chroot.manual_changes import Mark

Paths = Callable[[Record], Iterable[Path]]


class Artifact(NamedTuple):
    """The paths that a task's record vouches for, and those that are its alone."""

    results: Paths = lambda _record: ()
    owned: Paths = lambda _record: ()


Artifacts = Mapping[str, Artifact]  # by task


@dataclass(frozen=True)
class Known:
    """What vouches for results: the lock, records by task (those put aside too), generations.

    `generations` are the facts of every kept generation and candidate, by the name of its chroot;
    `by_hand` says where that lies which somebody has done in a chroot.
    """

    lock: Lock | None
    records: tuple[tuple[str, Record], ...]
    generations: tuple[tuple[str, Mapping[str, Any]], ...]
    by_hand: tuple[Mark, ...] = ()


def kept(layout: Layout, known: Known, artifacts: Artifacts) -> frozenset[Path]:
    """Every path below state/ that is wanted; pure. Raises BinmillError for an odd record."""
    found: set[Path] = set()
    if known.lock:
        found.add(layout.export(known.lock.tree.commit))
        found |= {layout.export(pin.commit) for pin in known.lock.overlays.values()}
        found |= {layout.seed(pin.sha512) for pin in known.lock.seeds.values()}
    for task, record in known.records:
        try:
            found |= set(artifacts[task].results(record))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(f"the record of {task}") from error
    for name, facts in known.generations:
        found.add(layout.binpkgs(name) / str(facts["set"]))
        found |= {layout.export(commit) for commit in facts["revisions"].values()}
    for mark in known.by_hand:
        found |= {layout.state / layer for layer in (mark.layer, *mark.over)}
    seeds = layout.seeds
    return frozenset(found | {p.with_name(f"{p.name}.listing") for p in found if p.parent == seeds})


def gathered(site: Site, artifacts: Artifacts) -> Known:
    """What vouches for results on this site; raises BinmillError where something is unreadable."""
    from tasks.chroot import manual_changes
    from tasks.publish import published

    layout = site.layout
    records = []
    for task in artifacts:
        place = layout.record(task)
        for path in (place, place.with_suffix(".before")):
            record = _read(path, task)
            if record is not None:
                records.append((task, record))
    facts = []
    for name in site.config.chroots:
        binhost = layout.binhost(name)
        for number in (
            *published.numbers(binhost),
            *published.numbers(binhost, published.CANDIDATES),
        ):
            try:
                facts.append((name, published.facts(binhost, number)))
            except (OSError, BinmillError) as error:
                raise _unreadable(f"generation {number} of {name}") from error
    marks = (manual_changes.marked(layout, name) for name in site.config.chroots)
    return Known(lock_file.load(layout), tuple(records), tuple(facts), tuple(filter(None, marks)))


def _read(path: Path, task: str) -> Record | None:
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _unreadable(f"the record of {task}") from error
    raise _unreadable(f"the record of {task}")


def _unreadable(what: str) -> BinmillError:
    return BinmillError(
        f"{what} is damaged, so nobody knows what it needs; nothing is deleted",
        "run `doit fsck --repair` first",
    )
