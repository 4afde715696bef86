"""Generations: immutable folders of packages and their indexes; `current` points to one.

    gen/N/            a generation, candidate/N/ a candidate that no client sees
    gen/N/GROUP/      a view: hard links to the packages of one group, with an index of its own
    current           a link to a generation; previous, channel.NAME and so on are others

One rename switches all groups at once, so a client sees either the old generation or the new one,
complete. `generation.json` describes a generation: a later one with the same packages repeats its
source, and has an issue of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.layout import pointer
from tasks.system.files import sync_folder, write_atomic

FACTS = "generation.json"
CANDIDATES = "candidate"  # beside gen/: not published yet


@dataclass(frozen=True)
class Source:
    """The content of a generation; every later generation with the same packages repeats it.

    `set` is the id of the package set, `signer` the fingerprint of the key that signed the
    packages, `revisions` has the commit of each repository. `inputs` is a digest of everything that
    the candidate was made from; "" equals none. `withheld` counts the packages of the set that no
    group may have. `modified` names the chroots with manual changes. `first` is the number of the
    generation that had these packages first; None: this one.
    """

    set: str
    signer: str
    revisions: Mapping[str, str]
    inputs: str = ""
    withheld: int = 0
    modified: tuple[str, ...] = ()
    first: int | None = None


@dataclass(frozen=True)
class Rollback:
    """A rollback to the packages of generation `number`, away from the set `instead_of`."""

    number: int
    instead_of: str | None = None


@dataclass(frozen=True)
class Issue:
    """The facts that each generation has of its own.

    `timestamp` is that of its indexes, `created` the time on the clock (epoch seconds; 0: unknown).
    `views` counts the packages of each view, `packages` all of
    them. `damaged`: files were withdrawn from it.
    """

    timestamp: int
    created: int
    views: Mapping[str, int]
    packages: int
    rollback: Rollback | None = None
    damaged: bool = False


@dataclass(frozen=True)
class Generation:
    """A generation that was published, or a candidate for one.

    `names` are those that point to it: `current`, `previous`, a channel.
    """

    number: int
    source: Source
    issue: Issue
    names: tuple[str, ...] = ()
    candidate: bool = False

    @property
    def first(self) -> int:
        """The number of the generation that had these packages first."""
        return self.number if self.source.first is None else self.source.first


def numbers(binhost: Path, where: str = "gen") -> list[int]:
    """The numbers of the generations, or of the CANDIDATES; oldest first."""
    folder = binhost / where
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def folder_of(binhost: Path, number: int) -> Path:
    """The folder of a generation, or of the candidate that may become it."""
    generation = binhost / "gen" / str(number)
    candidate = binhost / CANDIDATES / str(number)
    return candidate if candidate.is_dir() and not generation.is_dir() else generation


def load(binhost: Path, number: int) -> Generation:
    """A generation or candidate by its number; raises BinmillError if it is unreadable."""
    return load_folder(folder_of(binhost, number))


def load_folder(folder: Path) -> Generation:
    """The generation or candidate in a folder; raises BinmillError if it is unreadable."""
    facts = read_object(folder / FACTS)
    try:
        source, issue = _parse(facts)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BinmillError(
            "binhost-file-unreadable", path=folder / FACTS, cause=repr(error)
        ) from error
    return Generation(int(folder.name), source, issue, candidate=folder.parent.name == CANDIDATES)


def current(binhost: Path, channel: str = "", *, previous: bool = False) -> int | None:
    """The number of the generation that a channel serves, or served before; None without one."""
    return _target(binhost / pointer(channel, previous=previous))


def load_current(binhost: Path, channel: str = "") -> Generation | None:
    """The generation that a channel serves; None without one."""
    number = current(binhost, channel)
    return None if number is None else load(binhost, number)


def load_all(binhost: Path) -> list[Generation]:
    """The generations with the names that point to them, then the candidates; oldest first."""
    links = sorted(binhost.glob("*")) if binhost.is_dir() else []
    targets = {link.name.removeprefix("channel."): _target(link) for link in links}
    return [
        replace(
            load(binhost, number),
            names=tuple(name for name, target in targets.items() if target == number),
        )
        for number in numbers(binhost)
    ] + [load_folder(binhost / CANDIDATES / str(n)) for n in numbers(binhost, CANDIDATES)]


def write(folder: Path, source: Source, issue: Issue) -> None:
    """Write the generation.json of a folder."""
    facts = _plain(source, issue)
    write_atomic(folder / FACTS, json.dumps(facts, indent=1, sort_keys=True) + "\n")


def switch(binhost: Path, number: int, channel: str = "") -> None:
    """Point `current` at a generation by one rename, and `previous` at the one before it.

    A client that read the index before the switch still finds its packages at `previous`.
    """
    if not (binhost / "gen" / str(number)).is_dir():
        raise BinmillError("generation-missing", number=number, binhost=binhost)
    before = current(binhost, channel)
    if before is not None and before != number:
        _point(binhost, pointer(channel, previous=True), before)
    _point(binhost, pointer(channel), number)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises BinmillError if it is unreadable."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BinmillError("binhost-file-unreadable", path=path, cause=str(error)) from error
    if not isinstance(data, dict):
        raise BinmillError("binhost-file-unreadable", path=path, cause="not a JSON object")
    return data


def _target(link: Path) -> int | None:
    if not link.is_symlink() or not link.is_dir():  # none yet, or its generation was deleted
        return None
    return int(link.readlink().name)


def _point(binhost: Path, name: str, number: int) -> None:
    link = binhost / f".{name}.tmp"
    link.unlink(missing_ok=True)  # left by a killed run
    link.symlink_to(f"gen/{number}")
    link.rename(binhost / name)
    sync_folder(binhost)


def _parse(facts: Mapping[str, Any]) -> tuple[Source, Issue]:
    """The content of a generation.json, in the keys of version 0.1."""
    source = Source(
        set=str(facts.get("set", "")),
        signer=str(facts.get("signer", "")),
        revisions=dict(facts.get("revisions", {})),
        inputs=str(facts.get("asked", "")),
        withheld=int(facts.get("withheld", 0)),
        modified=tuple(facts.get("touched", ())),
        first=_number(facts.get("of")),
    )
    rollback = _number(facts.get("rollback"))
    issue = Issue(
        timestamp=int(facts["timestamp"]),
        created=int(facts.get("created", 0)),
        views=dict(facts.get("views", {})),
        packages=int(facts.get("packages", 0)),
        rollback=None if rollback is None else Rollback(rollback, facts.get("instead_of")),
        damaged=bool(facts.get("damaged", False)),
    )
    return source, issue


def _plain(source: Source, issue: Issue) -> dict[str, Any]:
    """The content of a generation.json; keys without a value are left out."""
    rollback = issue.rollback
    optional = {
        "touched": list(source.modified) or None,
        "of": source.first,
        "created": issue.created or None,
        "rollback": rollback and rollback.number,
        "instead_of": rollback and rollback.instead_of,
        "damaged": issue.damaged or None,
    }
    return {
        "set": source.set,
        "signer": source.signer,
        "revisions": dict(source.revisions),
        "asked": source.inputs,
        "withheld": source.withheld,
        "timestamp": issue.timestamp,
        "views": dict(issue.views),
        "packages": issue.packages,
        **{key: value for key, value in optional.items() if value is not None},
    }


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
