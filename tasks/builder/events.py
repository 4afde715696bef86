"""Events of a build, as data: for the reporter, and as JSON lines for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tasks.builder.failure import Failure
from tasks.text import count, one_line, span


@dataclass(frozen=True)
class PackageStarted:
    """A build started in a buildroot (`slot`, from 1); `expected` are its seconds by history."""

    event: ClassVar[str] = "package-started"
    package: str
    slot: int
    expected: float


@dataclass(frozen=True)
class PackageBuilt:
    """A build succeeded; `unchanged`: its output is equal to that of the build before."""

    event: ClassVar[str] = "package-built"
    package: str
    seconds: float
    memory: int
    unchanged: bool


@dataclass(frozen=True)
class PackageReused:
    """A package needed no build; `because` names rebuilt packages whose output came out equal."""

    event: ClassVar[str] = "package-reused"
    package: str
    because: tuple[str, ...]


@dataclass(frozen=True)
class PackageFailed:
    """A build failed; with `again`, it is tried once more when there is nothing else to do."""

    event: ClassVar[str] = "package-failed"
    package: str
    seconds: float
    failure: Failure
    again: bool


@dataclass(frozen=True)
class PackageSkipped:
    """A package is not built, because one that it needs, directly or not, failed."""

    event: ClassVar[str] = "package-skipped"
    package: str
    because: str


@dataclass(frozen=True)
class Running:
    """A buildroot at work: `elapsed` and `expected` in seconds; `phase` is "" if unknown."""

    slot: int
    package: str
    phase: str
    elapsed: float
    expected: float


@dataclass(frozen=True)
class BuildProgress:
    """The state of a build: `finished` of `total` packages, and the expected `seconds_left`.

    Reused, failed and skipped packages are finished, too.
    """

    event: ClassVar[str] = "build-progress"
    finished: int
    total: int
    failed: int
    seconds_left: float
    running: tuple[Running, ...]


Event = (
    PackageStarted | PackageBuilt | PackageReused | PackageFailed | PackageSkipped | BuildProgress
)


def plain(event: Event) -> Mapping[str, Any]:
    """An event as plain data, for JSON."""
    data = asdict(event)
    if isinstance(event, PackageFailed):
        data["failure"]["log"] = str(event.failure.log or "")
    return {"event": event.event, **data}


def lines(progress: BuildProgress) -> list[str]:
    """One line for each buildroot, and the total."""
    width = max((len(each.package) for each in progress.running), default=0)
    rows = []
    for each in progress.running:
        package, phase = one_line(each.package), one_line(each.phase, 10)
        rows.append(f"{each.slot:2} {package:{width}} {phase:10} {_time(each)}")
    return [*rows, _total(progress)]


def parse_progress(data: Mapping[str, Any]) -> BuildProgress:
    """Read a progress that `plain` wrote; raises ValueError for something else."""
    try:
        return BuildProgress(
            data["finished"],
            data["total"],
            data["failed"],
            data["seconds_left"],
            tuple(Running(**each) for each in data["running"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no progress of a build: {error}") from error


def _total(progress: BuildProgress) -> str:
    parts = [f"{progress.finished:,} of {count(progress.total, 'package')}"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.seconds_left >= 1:
        parts.append(f"{_about(progress.seconds_left)} left")
    return ", ".join(parts)


def _time(running: Running) -> str:
    elapsed = span(running.elapsed)
    return f"{elapsed} of {_about(running.expected)}" if running.expected else elapsed


def _about(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 60 else f"about {seconds / 60:.0f} min"
