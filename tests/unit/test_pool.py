"""The pool: who is asked, built, reused, skipped, and that nothing goes on after the end."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace

import pytest

from tasks.builder import pool as pools
from tasks.builder.account import BuiltPackage, CutOffPackage, SkippedPackage
from tasks.builder.events import (
    BuildProgress,
    Event,
    PackageBuilt,
    PackageFailed,
    PackageReused,
    PackageSkipped,
    PackageStarted,
)
from tasks.builder.failure import Failure, Kind
from tasks.builder.pool import Build, Outcome, Pool, Reuse, Success
from tasks.planner.schedule import Job, Limits
from tasks.system import cancel
from tasks.system.cancel import Cancelled
from tasks.system.notes import Note, listening, note
from tests.kit.job_graphs import random_jobs

BROKEN = Failure(Kind.COMPILE, "compile", ("x.c:1:1: error: odd",))
UNFETCHED = Failure(Kind.FETCH, "", ("!!! Couldn't download 'x'. Aborting.",))
DIAMOND = {"a": Job(), "b": Job(("a",)), "c": Job(("a",)), "d": Job(("b", "c"))}


class Scripted:
    """Work of which each build does what a test says; the others succeed at once."""

    def __init__(
        self,
        builds: Mapping[str, Callable[[], Outcome]] | None = None,
        reused: Mapping[str, Reuse] | None = None,
    ) -> None:
        self.builds, self.reused = builds or {}, reused or {}
        self.asked: list[str] = []
        self.started: list[str] = []
        self.threads: set[threading.Thread] = set()

    def decide(self, name: str) -> Build | Reuse:
        self.asked.append(name)
        return self.reused.get(name, Build())

    def build(self, name: str) -> Outcome:
        self.started.append(name)
        self.threads.add(threading.current_thread())
        return self.builds[name]() if name in self.builds else Success()

    def phase(self, name: str) -> str:
        return f"phase of {name}"


def built(pool: Pool) -> list[str]:
    return [package.name for package in pool.account.built]


def wait_for_cancel() -> Outcome:
    """A build that does not end by itself."""
    while True:
        threading.Event().wait(0.01)
        cancel.check()


def test_everything_is_built_after_its_needs() -> None:
    work = Scripted()
    account = Pool(DIAMOND, Limits(2), work).run()
    assert sorted(work.asked) == ["a", "b", "c", "d"]
    assert (work.started[0], work.started[-1]) == ("a", "d")
    assert (len(account.built), account.complete) == (4, True)


def test_package_is_asked_about_when_its_needs_are_finished() -> None:
    seen: dict[str, list[str]] = {}

    class Asking(Scripted):
        def decide(self, name: str) -> Build | Reuse:
            seen[name] = built(pool)
            return super().decide(name)

    pool = Pool(DIAMOND, Limits(2), Asking())
    pool.run()
    assert seen["a"] == []
    assert sorted(seen["d"]) == ["a", "b", "c"]


def test_reused_and_cut_off_packages_are_accounted_and_not_built() -> None:
    work = Scripted(
        {"a": lambda: Success(memory=7, unchanged=True)},
        {"b": Reuse(), "c": Reuse(("a",))},
    )
    pool = Pool(DIAMOND, Limits(1), work)
    account = pool.run()
    assert work.started == ["a", "d"]
    assert account.reused == ("b",)
    assert account.cut_off == (CutOffPackage("c", ("a",)),)
    first = account.built[0]
    assert first == BuiltPackage("a", first.seconds, 7, True)


def test_failure_stops_only_what_needs_it() -> None:
    jobs = {**DIAMOND, "e": Job(), "f": Job(("e",))}
    account = Pool(jobs, Limits(2), Scripted({"b": lambda: BROKEN})).run()
    assert sorted(package.name for package in account.built) == ["a", "c", "e", "f"]
    assert [(each.name, each.failure) for each in account.failed] == [("b", BROKEN)]
    assert account.skipped == (SkippedPackage("d", "b"),)
    assert (account.not_started, account.complete) == ((), False)


CYCLE = {"a": Job(), "b": Job(("a",), packages=("b", "c")), "d": Job(("b",))}


def test_packages_of_a_cycle_are_each_accounted() -> None:
    pool = Pool(CYCLE, Limits(1), Scripted({"b": lambda: Success(memory=7)}))
    pool.run()
    assert built(pool) == ["a", "b", "c", "d"]
    assert pool.progress.finished == pool.progress.total == 4
    assert Pool(CYCLE, Limits(1), Scripted({}, {"b": Reuse()})).run().reused == ("b", "c")


def test_package_of_a_cycle_that_failed_is_named() -> None:
    broken = replace(BROKEN, package="c")
    account = Pool(CYCLE, Limits(1), Scripted({"b": lambda: broken})).run()
    assert [each.name for each in account.failed] == ["c"]
    assert account.skipped == (SkippedPackage("b", "c"), SkippedPackage("d", "c"))


def test_fetch_failure_is_tried_again_at_the_end() -> None:
    outcomes: Iterator[Outcome] = iter([UNFETCHED, Success()])
    work = Scripted({"a": lambda: next(outcomes)})
    events: list[Event] = []
    jobs = {**DIAMOND, "e": Job(), "f": Job(("e",))}
    account = Pool(jobs, Limits(1), work, events.append).run()
    assert work.started[0] == "a"
    assert work.started.index("a", 1) == 3  # after e and f
    assert (len(account.built), account.failed) == (6, ())
    assert [each.again for each in events if isinstance(each, PackageFailed)] == [True]


def test_second_fetch_failure_is_one() -> None:
    work = Scripted({"a": lambda: UNFETCHED})
    account = Pool(DIAMOND, Limits(2), work).run()
    assert work.started == ["a", "a"]
    assert [each.name for each in account.failed] == ["a"]
    assert {each.name: each.because for each in account.skipped} == {"b": "a", "c": "a", "d": "a"}


def test_events_tell_all_in_order() -> None:
    events: list[Event] = []
    work = Scripted({"b": lambda: BROKEN}, {"c": Reuse(("a",))})
    jobs = {**DIAMOND, "a": Job(seconds=3.0)}
    Pool(jobs, Limits(1), work, events.append).run()
    assert PackageReused("c", ("a",)) in events  # before or after b has failed
    assert [type(each) for each in events if not isinstance(each, PackageReused)] == [
        PackageStarted,
        PackageBuilt,
        PackageStarted,
        PackageFailed,
        PackageSkipped,
    ]
    assert events[0] == PackageStarted("a", 1, 3.0)


def test_buildroots_have_numbers_and_are_used_again() -> None:
    events: list[Event] = []
    jobs = {f"p{number}": Job() for number in range(20)}
    Pool(jobs, Limits(3), Scripted(), events.append).run()
    slots = {each.slot for each in events if isinstance(each, PackageStarted)}
    assert slots <= {1, 2, 3}


def test_progress_comes_while_builds_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_TICK_SECONDS", 0.01)
    seen = threading.Event()
    reports: list[BuildProgress] = []

    def listen(event: Event) -> None:
        if isinstance(event, BuildProgress):
            reports.append(event)
            seen.set()

    def wait() -> Outcome:
        assert seen.wait(20)
        return Success()

    Pool({"a": Job(seconds=9.0), "b": Job(("a",))}, Limits(2), Scripted({"a": wait}), listen).run()
    (running,) = reports[0].running
    assert (reports[0].finished, reports[0].total) == (0, 2)
    assert (running.package, running.phase, running.slot) == ("a", "phase of a", 1)
    assert (running.expected, 0 <= running.elapsed < 20) == (9.0, True)
    assert 0 <= reports[0].seconds_left <= 9


def test_slots_are_kept() -> None:
    barrier = threading.Barrier(3)  # three run at once, or the test hangs
    most = [0, 0]
    lock = threading.Lock()

    def work() -> Outcome:
        with lock:
            most[0] += 1
            most[1] = max(most)
        barrier.wait(20)
        with lock:
            most[0] -= 1
        return Success()

    jobs = {f"p{number}": Job() for number in range(9)}
    Pool(jobs, Limits(3), Scripted(dict.fromkeys(jobs, work))).run()
    assert most[1] == 3


def test_bug_in_a_build_surfaces_and_ends_the_others() -> None:
    def bug() -> Outcome:
        raise ZeroDivisionError("a bug")

    work = Scripted({"a": bug, "b": wait_for_cancel})
    pool = Pool({"a": Job(), "b": Job(), "c": Job(("a",))}, Limits(2), work)
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        pool.run()
    assert "bug" in [entry.name for entry in caught.traceback]
    assert not any(thread.is_alive() for thread in work.threads)
    assert pool.account.not_started == ("a", "b", "c")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
@pytest.mark.parametrize("place", ["decide", "listen"])
def test_whatever_ends_the_run_ends_its_builds(error: type[BaseException], place: str) -> None:
    """A signal becomes an exception in the thread that runs the pool, wherever that is."""
    started = threading.Event()

    def wait() -> Outcome:
        started.set()
        return wait_for_cancel()

    class Interrupted(Scripted):
        def decide(self, name: str) -> Build | Reuse:
            if name == "c" and place == "decide":
                assert started.wait(20)
                raise error
            return super().decide(name)

    def listen(event: Event) -> None:
        if place == "listen" and isinstance(event, PackageBuilt):
            assert started.wait(20)
            raise error

    work = Interrupted({"a": wait})
    pool = Pool({"a": Job((), 9), "b": Job((), 8), "c": Job(("b",))}, Limits(2), work, listen)
    with pytest.raises(error):
        pool.run()
    assert not any(thread.is_alive() for thread in work.threads)
    assert built(pool) == ["b"]
    assert pool.account.not_started == ("a", "c")


def test_build_that_ends_while_the_run_is_cancelled_counts() -> None:
    def last() -> Outcome:
        with contextlib.suppress(Cancelled):
            wait_for_cancel()
        return Success()

    def bug() -> Outcome:
        raise ZeroDivisionError

    pool = Pool({"a": Job(), "b": Job()}, Limits(2), Scripted({"a": last, "b": bug}))
    with pytest.raises(ZeroDivisionError):
        pool.run()
    assert built(pool) == ["a"]


def test_context_reaches_the_builds() -> None:
    colour: ContextVar[str] = ContextVar("colour")
    seen: list[str] = []
    notes: list[Note] = []

    def look() -> Outcome:
        seen.append(colour.get())
        note("set-collected", chroot="c", packages=1, set="s")
        return Success()

    with listening(notes.append):
        colour.set("green")
        Pool({"a": Job()}, Limits(1), Scripted({"a": look})).run()
    assert seen == ["green"]
    assert [each.code for each in notes] == ["set-collected"]


def test_nothing_to_do_is_done() -> None:
    account = Pool({}, Limits(1), Scripted()).run()
    assert account.complete
    assert account.built == ()


def test_many_reused_packages_keep_no_buildroot_waiting() -> None:
    """A build starts as soon as it is decided, not when all others are."""
    order: list[str] = []
    started = threading.Event()

    class Ordered(Scripted):
        def decide(self, name: str) -> Build | Reuse:
            if name == "z":
                assert started.wait(20)
            order.append(name)
            return Build() if name == "a" else Reuse()

    def build() -> Outcome:
        started.set()
        return Success()

    jobs = {"a": Job(priority=1), **{f"p{n}": Job() for n in range(50)}, "z": Job()}
    Pool(jobs, Limits(1), Ordered({"a": build})).run()
    assert order[0] == "a"


@pytest.mark.parametrize("block", range(4))
def test_random_graphs_are_accounted_in_full(block: int) -> None:
    source = random.Random(block)  # noqa: S311 - to be repeated, not to be secret
    for _ in range(40):
        jobs, limits = random_jobs(source)
        broken = {name for name in jobs if source.random() < 0.1}
        unfetched = {name for name in jobs if source.random() < 0.1}
        work = Scripted(
            {name: (lambda: BROKEN) for name in broken}
            | {name: (lambda: UNFETCHED) for name in unfetched},
            {name: Reuse() for name in jobs if source.random() < 0.2},
        )
        account = Pool(jobs, limits, work).run()
        names = [
            *(each.name for each in account.built),
            *account.reused,
            *(each.name for each in account.failed),
            *(each.name for each in account.skipped),
        ]
        assert sorted(names) == sorted(jobs)
        finished = {*account.reused, *(each.name for each in account.built)}
        for name in finished:
            assert finished.issuperset(jobs[name].needs)
        failed = {each.name for each in account.failed}
        assert failed <= broken | unfetched
        assert all(each.because in failed for each in account.skipped)
