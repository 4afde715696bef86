"""Scheduling: which package starts next. Pure: no clock, no threads, no files.

Packages that the most work waits for start first (critical path). Buildroots, memory and packages
that must not run together limit what runs at once. What is expected of a package may be wrong:
it decides the order, never the result.
"""

from __future__ import annotations

import bisect
import fnmatch
import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.errors import BinmillError

# Packages that do not fit into memory and are passed over in search of one that does.
_PASSED_OVER = 200


@dataclass(frozen=True)
class Expectation:
    """The expected cost of a build: `seconds`, and `memory` at its peak, in bytes (0: unknown)."""

    seconds: float
    memory: int = 0


@dataclass(frozen=True)
class Job:
    """A package to build, or the `packages` of a cycle, by the name of the first.

    `needs` are the jobs that must be finished before it starts, `seconds` and `memory` (bytes) what
    it is expected to take. The highest `priority` starts first; 0 is the usual one. Of the jobs
    that share one of its `groups`, one runs at a time.
    """

    needs: tuple[str, ...] = ()
    seconds: float = 0.0
    memory: int = 0
    priority: int = 0
    groups: frozenset[int] = frozenset()
    packages: tuple[str, ...] = ()  # none: the one that the job is named after


@dataclass(frozen=True)
class Limits:
    """Limits of a run: `slots` (buildroots) at once, and their `memory` in bytes, if limited."""

    slots: int
    memory: int | None = None


@dataclass(frozen=True, order=True)
class Rank:
    """The place of a job among those that are ready; the smallest one starts first.

    `path` is the negative length, in seconds, of the longest chain of jobs that starts with it.
    """

    priority: int
    path: float
    name: str


def matches(pattern: str, cpv: str) -> bool:
    """Tell whether a package is meant: by CATEGORY/NAME, or by =CATEGORY/NAME-VERSION.

    Both may have wildcards: `dev-qt/*`, `=sys-devel/gcc-14*`.
    """
    from tasks.portage import gpkg

    if pattern.startswith("="):
        return fnmatch.fnmatchcase(cpv, pattern[1:])
    try:
        return fnmatch.fnmatchcase(gpkg.parse_cpv(cpv).cp, pattern)
    except BinmillError:  # a unit of several packages has a name of its own
        return fnmatch.fnmatchcase(cpv, pattern)


def jobs(
    needs: Mapping[str, Collection[str]],
    expected: Mapping[str, Expectation],
    priorities: Mapping[str, int] | None = None,
    exclusive: Sequence[Collection[str]] = (),
    cycles: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, Job]:
    """The jobs of a plan, by name; `cycles` has the packages of those that have several.

    `priorities` are by pattern (see `matches`), the last one that matches counts. Packages that
    match a pattern of the same item of `exclusive` never run together.
    """
    result = {}
    for name, before in needs.items():
        cost = expected.get(name, Expectation(0.0))
        packages = (cycles or {}).get(name, ())
        names = packages or (name,)
        priority = 0
        for pattern, number in (priorities or {}).items():
            priority = number if _any_matches([pattern], names) else priority
        groups = frozenset(
            number for number, patterns in enumerate(exclusive) if _any_matches(patterns, names)
        )
        result[name] = Job(tuple(before), cost.seconds, cost.memory, priority, groups, packages)
    return result


def _any_matches(patterns: Collection[str], names: Collection[str]) -> bool:
    return any(matches(pattern, name) for pattern in patterns for name in names)


def ordered(jobs: Mapping[str, Job]) -> list[str]:
    """All jobs, each after its needs; raises ValueError for a cycle or an unknown need."""
    missing = {name: len(set(job.needs)) for name, job in jobs.items()}
    after = dependents(jobs)
    order = [name for name, number in missing.items() if number == 0]
    for name in order:  # grows meanwhile
        for each in after[name]:
            missing[each] -= 1
            if missing[each] == 0:
                order.append(each)
    if len(order) != len(jobs):
        cycle = sorted(jobs.keys() - set(order))
        raise ValueError(f"{len(cycle)} jobs need each other or wait for some that do: {cycle[:5]}")
    return order


def dependents(jobs: Mapping[str, Job]) -> dict[str, list[str]]:
    """The jobs that need each job; raises ValueError for an unknown need."""
    after: dict[str, list[str]] = {name: [] for name in jobs}
    for name, job in jobs.items():
        for need in set(job.needs):
            if need not in after:
                raise ValueError(f"{name} needs {need}, which is no job")
            after[need].append(name)
    return after


def ranks(jobs: Mapping[str, Job]) -> dict[str, Rank]:
    """The rank of each job: a job is as urgent as the most urgent one that waits for it."""
    after = dependents(jobs)
    result: dict[str, Rank] = {}
    for name in reversed(ordered(jobs)):
        waiting = [result[each] for each in after[name]]
        priority = min((rank.priority for rank in waiting), default=-jobs[name].priority)
        path = min((rank.path for rank in waiting), default=0.0) - jobs[name].seconds
        result[name] = Rank(min(priority, -jobs[name].priority), path, name)
    return result


def lower_bound(jobs: Mapping[str, Job], slots: int) -> float:
    """The seconds below which no schedule gets: the critical path, or the work of each slot."""
    longest = max((-rank.path for rank in ranks(jobs).values()), default=0.0)
    return max(longest, sum(job.seconds for job in jobs.values()) / slots)


def admit(
    ready: Iterable[str],
    running: Mapping[str, float],
    now: float,
    jobs: Mapping[str, Job],
    limits: Limits,
) -> list[str]:
    """The jobs that start now.

    `ready` is in the order of ranks, `running` has the expected end of each job, by the clock of
    `now`. The first job that lacks memory gets a reservation: a later one starts before it only if
    it is expected to end by then, or if there is memory for both. So large jobs do not starve
    (EASY backfilling, Lifka 1995). A job that needs more than all memory runs alone.
    """
    start: list[str] = []
    ends = dict(running)
    free = (limits.memory or 0) - sum(_demand(jobs[name], limits) for name in running)
    groups = {group for name in running for group in jobs[name].groups}
    reserved: tuple[float, int] | None = None  # the time, and the memory that is left over then
    passed = 0
    for name in ready:
        if len(ends) >= limits.slots or passed > _PASSED_OVER:
            break
        job = jobs[name]
        blocked = not groups.isdisjoint(job.groups)
        # what follows must not take its other groups for ever
        groups |= job.groups
        if blocked:
            continue
        demand = _demand(job, limits)
        if demand > free:
            passed += 1
            if reserved is None:
                reserved = _reservation(demand, free, ends, jobs, limits)
            continue
        if reserved is not None and now + job.seconds > reserved[0]:
            if demand > reserved[1]:
                passed += 1
                continue
            reserved = (reserved[0], reserved[1] - demand)
        start.append(name)
        ends[name] = now + job.seconds
        free -= demand
    return start


def _demand(job: Job, limits: Limits) -> int:
    """The bytes that a job occupies: all of them, where it needs more; 0 if memory is no limit."""
    if limits.memory is None:
        return 0
    return max(1, min(job.memory, limits.memory))


def _reservation(
    demand: int, free: int, ends: Mapping[str, float], jobs: Mapping[str, Job], limits: Limits
) -> tuple[float, int]:
    """The time at which so much memory is expected to be free, and what is left over then."""
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        free += _demand(jobs[name], limits)
        if free >= demand:
            return end, free - demand
    return math.inf, 0  # not reached: a demand is at most all memory


class Queue:
    """The state of a run: jobs wait, are asked about, are ready, run, and end.

    When the needs of a job are finished, it is `undecided` until the caller reports it as `reuse`d
    or to be built (`enqueue`). What needs a failed job is skipped. Not for several threads.
    """

    def __init__(self, jobs: Mapping[str, Job], limits: Limits) -> None:
        self.jobs, self.limits = jobs, limits
        self.running: dict[str, float] = {}  # the time of their start
        self.skipped: dict[str, str] = {}  # the failed job that each was skipped for
        self._ranks = ranks(jobs)
        self._after = dependents(jobs)
        self._missing = {name: len(set(job.needs)) for name, job in jobs.items()}
        # a heap, which a sorted list is
        self._undecided = sorted(
            rank for name, rank in self._ranks.items() if not self._missing[name]
        )
        self._asked: set[str] = set()
        self._ready: list[Rank] = []
        self._postponed: list[Rank] = []
        self._open = set(jobs)
        self._seconds_open = sum(job.seconds for job in jobs.values())

    @property
    def ended(self) -> bool:
        """True when every job is finished, failed or skipped."""
        return not self._open

    @property
    def open(self) -> int:
        """The number of jobs that are neither finished nor failed nor skipped."""
        return len(self._open)

    def undecided(self) -> str | None:
        """Take the most urgent job whose needs are finished by now; None if there is none."""
        if not self._undecided:
            return None
        name = heapq.heappop(self._undecided).name
        self._asked.add(name)
        return name

    def enqueue(self, name: str) -> None:
        """Let an undecided job be built."""
        self._asked.remove(name)
        bisect.insort(self._ready, self._ranks[name])

    def reuse(self, name: str) -> None:
        """Finish an undecided job: it needs no build."""
        self._asked.remove(name)
        self._finish(name)

    def start(self, now: float) -> list[str]:
        """Start what may run now, the most urgent first."""
        if not (self._ready or self.running or self._undecided or self._asked):
            self._ready, self._postponed = sorted(self._postponed), []
        ends = {name: start + self.jobs[name].seconds for name, start in self.running.items()}
        names = admit((rank.name for rank in self._ready), ends, now, self.jobs, self.limits)
        for name in names:
            del self._ready[bisect.bisect_left(self._ready, self._ranks[name])]
            self.running[name] = now
        return names

    def finish(self, name: str) -> None:
        """Finish a running job; what waited for it alone becomes undecided."""
        del self.running[name]
        self._finish(name)

    def postpone(self, name: str) -> None:
        """Take a running job back, to be started again when there is nothing else to do."""
        del self.running[name]
        self._postponed.append(self._ranks[name])

    def fail(self, name: str) -> list[str]:
        """End a running job as failed; returns what is skipped because of it, by name."""
        del self.running[name]
        self._close(name)
        found, waiting = set(), list(self._after[name])
        while waiting:
            each = waiting.pop()
            if each in self._open and each not in found:
                found.add(each)
                waiting += self._after[each]
        for each in found:
            self._close(each)
            self.skipped[each] = name
        return sorted(found)

    def seconds_left(self, now: float) -> float:
        """The expected time until everything is finished, if all that is open must be built."""
        longest, done = 0.0, 0.0
        for name, start in self.running.items():
            elapsed = min(now - start, self.jobs[name].seconds)
            longest = max(longest, -self._ranks[name].path - elapsed)
            done += elapsed
        waiting = [*self._ready, *self._undecided, *self._postponed]
        waiting += [self._ranks[name] for name in self._asked]
        longest = max(longest, -min((rank.path for rank in waiting), default=0.0))
        return max(longest, (self._seconds_open - done) / self.limits.slots, 0.0)

    def _finish(self, name: str) -> None:
        self._close(name)
        for each in self._after[name]:
            self._missing[each] -= 1
            if not self._missing[each] and each in self._open:
                heapq.heappush(self._undecided, self._ranks[each])

    def _close(self, name: str) -> None:
        self._open.remove(name)
        self._seconds_open -= self.jobs[name].seconds


@dataclass(frozen=True)
class Simulation:
    """A simulated run: its `seconds`, and when each job that ran started and ended."""

    seconds: float
    spans: Mapping[str, tuple[float, float]]
    reused: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: Mapping[str, str]


def simulate(
    jobs: Mapping[str, Job],
    limits: Limits,
    *,
    actual: Mapping[str, float] | None = None,
    reused: Callable[[str], bool] = lambda _name: False,
    fails: Callable[[str], bool] = lambda _name: False,
) -> Simulation:
    """Run a queue by a virtual clock; `actual` are the seconds that differ from the expected ones.

    Used by tests and benchmarks, and to predict the time of a whole run.
    """
    queue = Queue(jobs, limits)
    now = 0.0
    ends: list[tuple[float, str]] = []
    spans: dict[str, tuple[float, float]] = {}
    reuse: list[str] = []
    failed: list[str] = []
    while True:
        while (name := queue.undecided()) is not None:
            if reused(name):
                queue.reuse(name)
                reuse.append(name)
            else:
                queue.enqueue(name)
        for name in queue.start(now):
            end = now + (actual or {}).get(name, jobs[name].seconds)
            spans[name] = (now, end)
            heapq.heappush(ends, (end, name))
        if not ends:
            break
        now, name = heapq.heappop(ends)
        if fails(name):
            queue.fail(name)
            failed.append(name)
        else:
            queue.finish(name)
    return Simulation(now, spans, tuple(reuse), tuple(failed), queue.skipped)
