"""History: the seconds and the memory that earlier builds took, to expect those of the next.

One JSON file, at a path that the caller gives. It is a cache: what is damaged in it is dropped,
and a lost update harms nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tasks.errors import BinmillError
from tasks.planner.schedule import Expectation
from tasks.system.files import write_atomic

_VERSION = 1
_BUILDS = 8  # of a package
_PACKAGES = 50_000
_LARGEST = 64 << 20  # bytes of the file
_COUNTED = 5  # the newest builds count
_LONGEST_BUILD = 30 * 86400.0  # seconds
_MOST_MEMORY = 1 << 50  # bytes
# A package that was never built, on a machine of which nothing is known: seconds at the least, and
# for each MB of its distfiles. A guess: it decides the order of the first builds only.
_BASE_SECONDS = 8.0
_SECONDS_PER_MB = 8.0
_ENOUGH = 5  # packages with a history, from which this machine's own rate is taken
_SMALL = 0.05  # MB: what such packages take says nothing about a rate


@dataclass(frozen=True)
class PastBuild:
    """A build that succeeded: its version, seconds, and peak memory in bytes (0: unknown)."""

    version: str
    seconds: float
    memory: int = 0


@dataclass(frozen=True)
class History:
    """The newest builds of each package, by CATEGORY/NAME, the oldest first."""

    builds: Mapping[str, tuple[PastBuild, ...]] = field(default_factory=dict)

    def with_builds(self, builds: Iterable[tuple[str, float, int]]) -> History:
        """Add builds (CPV, seconds, bytes); of each package, and of packages, the newest stay."""
        result = dict(self.builds)
        for cpv, seconds, memory in builds:
            name, version = split(cpv)
            past = PastBuild(version, min(seconds, _LONGEST_BUILD), min(memory, _MOST_MEMORY))
            # at the end: the packages that were not built for the longest time come first
            result[name] = (*result.pop(name, ()), past)[-_BUILDS:]
        return History(dict(list(result.items())[-_PACKAGES:]))

    def of(self, cpv: str) -> Expectation | None:
        """The median cost of the newest builds of a version, or else of other versions."""
        name, version = split(cpv)
        builds = self.builds.get(name, ())
        same = [build for build in builds if build.version == version] or list(builds)
        if not same:
            return None
        newest = same[-_COUNTED:]
        memory = [build.memory for build in newest if build.memory] or [0]
        return Expectation(median(build.seconds for build in newest), int(median(memory)))


def expected(distfiles: Mapping[str, int], history: History) -> dict[str, Expectation]:
    """The expected cost of each package, by CPV; `distfiles` are the bytes that each fetches.

    Packages without a history are expected to take a time in proportion to their distfiles, as
    those with a history do on this machine, and the median of their memory.
    """
    past = {cpv: cost for cpv in distfiles if (cost := history.of(cpv)) is not None}
    rates = [
        max(0.0, cost.seconds - _BASE_SECONDS) / (distfiles[cpv] / 1e6)
        for cpv, cost in past.items()
        if distfiles[cpv] / 1e6 >= _SMALL
    ]
    rate = median(rates) if len(rates) >= _ENOUGH else _SECONDS_PER_MB
    memory = int(median([cost.memory for cost in past.values() if cost.memory] or [0]))
    return {
        cpv: past.get(cpv) or Expectation(_BASE_SECONDS + rate * size / 1e6, memory)
        for cpv, size in distfiles.items()
    }


def split(cpv: str) -> tuple[str, str]:
    """CATEGORY/NAME and version; the name of a unit of several packages has no version."""
    from tasks.portage import gpkg

    try:
        name = gpkg.parse_cpv(cpv)
    except BinmillError:
        return cpv, ""
    return name.cp, name.version


def read(path: Path) -> History:
    """Read a history; what is missing or damaged is left out."""
    try:
        if not path.is_file():
            return History()
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
        data = json.loads(raw) if len(raw) <= _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return History()
    if not isinstance(data, dict) or data.get("version") != _VERSION:
        return History()
    packages = data.get("packages")
    items = list(packages.items())[-_PACKAGES:] if isinstance(packages, dict) else []
    builds = {name: _builds(rows) for name, rows in items}
    return History({name: past for name, past in builds.items() if past})


def add(path: Path, builds: Iterable[tuple[str, float, int]]) -> None:
    """Add builds (CPV, seconds, bytes of memory) to the history in a file."""
    history = read(path).with_builds(builds)
    packages = {
        name: [[build.version, round(build.seconds, 2), build.memory] for build in past]
        for name, past in history.builds.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"version": _VERSION, "packages": packages}) + "\n")


def _builds(rows: Any) -> tuple[PastBuild, ...]:
    """The builds of a package that are sound."""
    if not isinstance(rows, list):
        return ()
    return tuple(PastBuild(*row) for row in rows[-_BUILDS:] if _sound(row))


def _sound(row: Any) -> bool:
    if not isinstance(row, list) or len(row) != 3:
        return False
    version, seconds, memory = row
    return (
        isinstance(version, str)
        and type(seconds) in (int, float)
        and 0 <= seconds <= _LONGEST_BUILD
        and type(memory) is int
        and 0 <= memory <= _MOST_MEMORY
    )
