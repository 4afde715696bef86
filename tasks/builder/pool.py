"""Builds side by side: a schedule carried out by threads, each of which waits for one buildroot.

A package that fails stops only what needs it. Only the thread that calls `run` decides, keeps the
account, and passes events on; the others build, and print nothing.
"""

from __future__ import annotations

import contextvars
import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from tasks.builder.account import (
    Account,
    BuiltPackage,
    CutOffPackage,
    FailedPackage,
    SkippedPackage,
)
from tasks.builder.events import (
    BuildProgress,
    Event,
    PackageBuilt,
    PackageFailed,
    PackageReused,
    PackageSkipped,
    PackageStarted,
    Running,
)
from tasks.builder.failure import Failure, Kind
from tasks.planner.schedule import Job, Limits, Queue
from tasks.system.cancel import Cancelled, Scope, working_in

_TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Build:
    """A decision: the package must be built."""


@dataclass(frozen=True)
class Reuse:
    """A decision: there is a package already.

    `because` names packages that were built and whose output came out equal: without that, it
    would have been built, too.
    """

    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class Success:
    """The end of a build that succeeded; `memory` is its peak in bytes (0: unknown).

    `unchanged`: its output is equal to that of the build before.
    """

    memory: int = 0
    unchanged: bool = False


Outcome = Success | Failure


class Work(Protocol):
    """The work that a pool schedules. Whatever its methods raise ends the whole run."""

    def decide(self, name: str) -> Build | Reuse:
        """Decide about a package when its needs are finished; in the thread of `run`, so quick."""

    def build(self, name: str) -> Outcome:
        """Build a package, in a thread of its own, which ends with the build.

        Programs that it starts (system.command) end when the run does, with Cancelled, which it
        must let pass. A failure of the package is returned, not raised.
        """

    def phase(self, name: str) -> str:
        """The present phase of a build, "" if unknown; in the thread of `run`, each second."""


@dataclass(frozen=True)
class _Result:
    name: str
    seconds: float
    outcome: Outcome | BaseException


@dataclass(frozen=True)
class _Started:
    slot: int
    time: float
    thread: threading.Thread


class Pool:
    """One run over all jobs. Its `account` is that of the moment, also after `run` has raised.

    `listen` gets every event, and the progress each second, in the thread that calls `run`.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        limits: Limits,
        work: Work,
        listen: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        self._queue = Queue(jobs, limits)
        self._jobs, self._work, self._listen = jobs, work, listen
        self._packages = {name: job.packages or (name,) for name, job in jobs.items()}
        self._results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        self._scope = Scope()
        self._running: dict[str, _Started] = {}
        self._slots = list(range(1, limits.slots + 1))  # a heap of the free ones
        self._postponed: set[str] = set()
        self._built: list[BuiltPackage] = []
        self._reused: list[str] = []
        self._cut_off: list[CutOffPackage] = []
        self._failed: list[FailedPackage] = []
        self._skipped: list[SkippedPackage] = []
        self._start = self._shown = time.monotonic()
        self._seconds = 0.0

    @property
    def account(self) -> Account:
        """The fate of each package until now."""
        ended: set[str] = {*self._reused}
        for packages in (self._built, self._cut_off, self._failed, self._skipped):
            ended.update(package.name for package in packages)
        return Account(
            tuple(self._built),
            tuple(self._reused),
            tuple(self._cut_off),
            tuple(self._failed),
            tuple(self._skipped),
            tuple(each for each in self._every_package() if each not in ended),
            self._seconds,
        )

    @property
    def progress(self) -> BuildProgress:
        """The state of the run; only for the thread that calls `run`."""
        now = time.monotonic()
        running = [
            Running(
                started.slot,
                name,
                self._work.phase(name),
                now - started.time,
                self._jobs[name].seconds,
            )
            for name, started in self._running.items()
        ]
        total = sum(map(len, self._packages.values()))
        return BuildProgress(
            total - len(self.account.not_started),
            total,
            len(self._failed),
            self._queue.seconds_left(now),
            tuple(sorted(running, key=lambda each: each.slot)),
        )

    def _every_package(self) -> Iterator[str]:
        return chain.from_iterable(self._packages.values())

    def run(self) -> Account:
        """Decide about and build everything; returns the account.

        When it raises, also KeyboardInterrupt, all builds were ended and no thread is left. A
        second interrupt meanwhile ends them without a grace period, and waits no longer.
        """
        self._start = self._shown = time.monotonic()
        try:
            while not self._queue.ended:
                self._step()
        except BaseException:
            self._cancel()
            raise
        finally:
            self._seconds = time.monotonic() - self._start
        return self.account

    def _step(self) -> None:
        """Decide about one package, start what may start, and take in what has ended.

        Decisions about many packages do not keep buildroots waiting.
        """
        name = self._queue.undecided()
        if name is not None:
            self._decide(name)
        for each in self._queue.start(time.monotonic()):
            self._start_build(each)
        if name is None and not self._queue.ended:
            if not self._running:
                raise RuntimeError("packages are left, but none may start")
            self._receive(_TICK_SECONDS)
        elif not self._results.empty():
            self._receive(0.0)
        if time.monotonic() - self._shown >= _TICK_SECONDS:
            self._shown = time.monotonic()
            self._listen(self.progress)

    def _decide(self, name: str) -> None:
        decision = self._work.decide(name)
        if isinstance(decision, Build):
            self._queue.enqueue(name)
            return
        self._queue.reuse(name)
        for each in self._packages[name]:
            if decision.because:
                self._cut_off.append(CutOffPackage(each, decision.because))
            else:
                self._reused.append(each)
            self._listen(PackageReused(each, decision.because))

    def _start_build(self, name: str) -> None:
        slot = heapq.heappop(self._slots)
        # listeners of notes and the screen are those of this context
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._build, name), name=f"build {name}", daemon=True
        )
        self._running[name] = _Started(slot, time.monotonic(), thread)
        self._listen(PackageStarted(name, slot, self._jobs[name].seconds))
        thread.start()

    def _build(self, name: str) -> None:
        """Build one package: the work of a thread."""
        start = time.monotonic()
        try:
            with working_in(self._scope):
                outcome: Outcome | BaseException = self._work.build(name)
        except BaseException as error:  # raised again by `run`
            outcome = error
        self._results.put(_Result(name, time.monotonic() - start, outcome))

    def _receive(self, seconds: float) -> None:
        try:
            result = self._results.get(timeout=seconds)
        except queue.Empty:
            return
        started = self._running.pop(result.name)
        started.thread.join()
        heapq.heappush(self._slots, started.slot)
        if isinstance(result.outcome, BaseException):
            raise result.outcome
        if isinstance(result.outcome, Success):
            self._queue.finish(result.name)
            for built in self._succeed(result, result.outcome):
                self._listen(PackageBuilt(built.name, built.seconds, built.memory, built.unchanged))
        else:
            self._fail(result, result.outcome)

    def _succeed(self, result: _Result, success: Success) -> list[BuiltPackage]:
        packages = self._packages[result.name]
        seconds = result.seconds / len(packages)
        built = [
            BuiltPackage(each, seconds, success.memory, success.unchanged) for each in packages
        ]
        self._built += built
        return built

    def _fail(self, result: _Result, failure: Failure) -> None:
        name, package = result.name, failure.package or result.name
        again = failure.kind is Kind.FETCH and name not in self._postponed
        skipped: list[str] = []
        if again:  # a mirror may be back later
            self._postponed.add(name)
            self._queue.postpone(name)
        else:
            self._failed.append(FailedPackage(package, failure, result.seconds))
            jobs = (name, *self._queue.fail(name))
            skipped = [each for job in jobs for each in self._packages[job] if each != package]
        self._skipped += [SkippedPackage(each, package) for each in skipped]
        self._listen(PackageFailed(package, result.seconds, failure, again))
        for each in skipped:
            self._listen(PackageSkipped(each, package))

    def _cancel(self) -> None:
        """End all builds, wait for their threads, and account for those that were finished."""
        try:
            self._scope.cancel()
            for started in self._running.values():
                if started.thread.ident is not None:  # else it was never started
                    started.thread.join()
        except BaseException:
            self._scope.cancel(grace=0)
            raise
        while not self._results.empty():
            result = self._results.get()
            if isinstance(result.outcome, Success):
                self._succeed(result, result.outcome)
            elif isinstance(result.outcome, Failure):
                package = result.outcome.package or result.name
                self._failed.append(FailedPackage(package, result.outcome, result.seconds))


__all__ = ["Build", "Cancelled", "Outcome", "Pool", "Reuse", "Success", "Work"]
