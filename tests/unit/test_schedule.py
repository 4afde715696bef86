"""Scheduling by a virtual clock: order, limits, and how close to the best possible time it gets."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from tasks.planner import schedule
from tasks.planner.schedule import (
    Expectation,
    Job,
    Limits,
    Queue,
    admit,
    lower_bound,
    matches,
    ordered,
    ranks,
    simulate,
)
from tests.kit.job_graphs import GIGABYTE, broken_rules, random_jobs, tree_of_packages


def chain(*names: str, seconds: float = 1.0) -> dict[str, Job]:
    """Jobs of which each needs the one before."""
    return {
        name: Job(names[number - 1 : number] if number else (), seconds)
        for number, name in enumerate(names)
    }


@pytest.mark.parametrize(
    ("pattern", "cpv", "expected"),
    [
        ("dev-libs/popt", "dev-libs/popt-1.19-r1", True),
        ("dev-libs/pop", "dev-libs/popt-1.19-r1", False),
        ("dev-libs/*", "dev-libs/popt-1.19-r1", True),
        ("*/popt", "dev-libs/popt-1.19-r1", True),
        ("*/*", "dev-libs/popt-1.19-r1", True),
        ("dev-libs/popt-1.19-r1", "dev-libs/popt-1.19-r1", False),
        ("=dev-libs/popt-1.19-r1", "dev-libs/popt-1.19-r1", True),
        ("=dev-libs/popt-1*", "dev-libs/popt-1.19-r1", True),
        ("=dev-libs/popt-2*", "dev-libs/popt-1.19-r1", False),
        ("unit-1", "unit-1", True),
    ],
)
def test_pattern_matches_names_or_versions(pattern: str, cpv: str, expected: bool) -> None:
    assert matches(pattern, cpv) is expected


def test_jobs_get_priorities_and_groups_by_pattern() -> None:
    made = schedule.jobs(
        {"a/x-1": ["a/y-2"], "a/y-2": [], "b/z-3": []},
        {"a/x-1": Expectation(5.0, 7)},
        {"a/*": 10, "*/y": -1},
        [["a/*"], ["b/z", "=a/x-1"]],
    )
    assert made == {
        "a/x-1": Job(("a/y-2",), 5.0, 7, 10, frozenset({0, 1})),
        "a/y-2": Job((), 0.0, 0, -1, frozenset({0})),
        "b/z-3": Job((), 0.0, 0, 0, frozenset({1})),
    }


def test_pattern_for_a_package_of_a_cycle_counts() -> None:
    jobs = schedule.jobs({"a/x-1": []}, {}, {"b/y": 3}, [["b/y"]], {"a/x-1": ("a/x-1", "b/y-1")})
    cycle = Job(priority=3, groups=frozenset({0}), packages=("a/x-1", "b/y-1"))
    assert jobs == {"a/x-1": cycle}


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ({"a": Job(("b",)), "b": Job(("a",)), "c": Job(("a",))}, "need each other"),
        ({"a": Job(("a",))}, "need each other"),
        ({"a": Job(("z",))}, "z, which is no job"),
    ],
)
def test_graph_that_cannot_be_ordered_is_refused(jobs: dict[str, Job], words: str) -> None:
    for function in (ordered, ranks):
        with pytest.raises(ValueError, match=words):
            function(jobs)


def test_longest_remaining_path_starts_first() -> None:
    jobs = {**chain("a", "b", "c", seconds=10), "long": Job((), 25), "short": Job((), 1)}
    assert sorted(ranks(jobs).values())[0].name == "a"
    run = simulate(jobs, Limits(1))
    assert sorted(run.spans, key=lambda name: run.spans[name]) == ["a", "long", "b", "c", "short"]


def test_priority_of_a_package_is_that_of_its_needs_too() -> None:
    jobs = {
        **chain("a", "b", seconds=1),
        "long": Job((), 100),
        "last": Job((), 500, priority=-5),
    }
    jobs["b"] = replace(jobs["b"], priority=1)
    run = simulate(jobs, Limits(1))
    assert sorted(run.spans, key=lambda name: run.spans[name]) == ["a", "b", "long", "last"]


def test_low_priority_does_not_delay_what_waits_for_it() -> None:
    jobs = {"tool": Job((), 1, priority=-5), "user": Job(("tool",), 50), "other": Job((), 10)}
    assert simulate(jobs, Limits(1)).spans["tool"] == (0, 1)


def test_memory_is_kept_for_the_first_that_lacks_it() -> None:
    jobs = {
        "now": Job((), 10, 6),
        "large": Job((), 100, 8),
        "quick": Job((), 5, 2),
        "slow": Job((), 50, 4),
        "small": Job((), 50, 2),
    }
    limits = Limits(9, 10)
    ready = ["large", "slow", "quick", "small"]
    # quick ends before large can start, small leaves enough memory for it, slow would delay it
    assert admit(ready, {"now": 10}, 0, jobs, limits) == ["quick", "small"]
    assert admit(["large"], {}, 0, jobs, limits) == ["large"]


def test_package_larger_than_all_memory_runs_alone() -> None:
    jobs = {"huge": Job((), 10, 99), **{f"p{n}": Job((), 4, 0) for n in range(6)}}
    run = simulate(jobs, Limits(4, 8))
    start, end = run.spans["huge"]
    assert [n for n, (a, z) in run.spans.items() if a < end and z > start] == ["huge"]
    assert broken_rules(jobs, Limits(4, 8), run) == []


def test_small_jobs_do_not_starve_a_large_one() -> None:
    small = {f"s{n:03}": Job((), 10 + n % 7, 1) for n in range(400)}
    jobs = {**small, "large": Job((), 300, 9)}
    run = simulate(jobs, Limits(8, 10))
    assert run.spans["large"][0] <= 20


def test_job_of_two_groups_gets_its_turn() -> None:
    members = {
        **{f"a{n}": Job((), 10, groups=frozenset({0})) for n in range(20)},
        **{f"b{n}": Job((), 7, groups=frozenset({1})) for n in range(20)},
    }
    jobs = {**members, "both": Job((), 100, groups=frozenset({0, 1}))}
    run = simulate(jobs, Limits(4))
    assert broken_rules(jobs, Limits(4), run) == []
    assert run.spans["both"][0] == 0
    late = simulate({**jobs, "both": replace(jobs["both"], needs=("a0",))}, Limits(4))
    assert late.spans["both"][0] <= 20


def test_without_a_memory_limit_memory_is_no_matter() -> None:
    jobs = {f"p{n}": Job((), 1, 1 << 60) for n in range(5)}
    assert simulate(jobs, Limits(5)).seconds == 1


def test_failure_skips_what_depends_on_it_and_nothing_else() -> None:
    jobs = {**chain("a", "b", "c"), "d": Job(), "e": Job(("d", "c")), "f": Job(("d",))}
    run = simulate(jobs, Limits(2), fails=lambda name: name == "b")
    assert run.skipped == {"c": "b", "e": "b"}
    assert set(run.spans) == {"a", "b", "d", "f"}


def test_reused_job_takes_no_slot_and_no_time() -> None:
    jobs = {**chain("a", "b", "c", seconds=10), "d": Job((), 10)}
    run = simulate(jobs, Limits(1), reused=lambda name: name in "ab")
    assert (run.seconds, run.reused) == (20, ("a", "b"))


def test_postponed_job_runs_again_when_there_is_nothing_else() -> None:
    queue = Queue({**chain("a", "b"), "c": Job((), 0.5), "d": Job(("c",), 0.5)}, Limits(1))

    def start() -> list[str]:
        while (name := queue.undecided()) is not None:
            queue.enqueue(name)
        return queue.start(0)

    assert start() == ["a"]
    queue.postpone("a")
    order = []
    while not queue.ended:
        (name,) = start()
        order.append(name)
        queue.finish(name)
    assert order == ["c", "d", "a", "b"]


def test_seconds_left_shrink_as_work_is_done() -> None:
    queue = Queue({**chain("a", "b", seconds=10), "c": Job((), 4)}, Limits(2))
    assert queue.seconds_left(0) == 20  # the path
    while (name := queue.undecided()) is not None:
        queue.enqueue(name)
    assert queue.start(0) == ["a", "c"]
    assert queue.seconds_left(4) == 16
    assert queue.seconds_left(99) == 10  # a is late: b is still to come
    queue.finish("a")
    assert queue.seconds_left(99) == 10
    queue.finish("c")
    while (name := queue.undecided()) is not None:
        queue.reuse(name)
    assert (queue.seconds_left(99), queue.ended, queue.open) == (0, True, 0)


def test_many_jobs_at_once_are_bound_by_work() -> None:
    queue = Queue({f"p{n}": Job((), 10) for n in range(8)}, Limits(2))
    assert queue.seconds_left(0) == 40


def test_queue_refuses_what_it_did_not_start() -> None:
    queue = Queue(chain("a", "b"), Limits(1))
    for call in (queue.finish, queue.fail, queue.postpone, queue.reuse, queue.enqueue):
        with pytest.raises(KeyError):
            call("a")


@pytest.mark.parametrize("block", range(8))
def test_random_graphs_break_no_rule(block: int) -> None:
    """Thousands of small graphs, some with reused and failing packages and wrong expectations."""
    source = random.Random(block)  # noqa: S311
    for _ in range(400):
        jobs, limits = random_jobs(source)
        chance = source.choice([0.0, 0.0, 0.2])
        reused = {name for name in jobs if source.random() < chance}
        failed = {name for name in jobs if source.random() < chance}
        factor = source.choice([0.0, 2.0])
        run = simulate(
            jobs,
            limits,
            actual={name: job.seconds * source.random() * factor for name, job in jobs.items()}
            if factor
            else None,
            reused=reused.__contains__,
            fails=failed.__contains__,
        )
        assert broken_rules(jobs, limits, run) == []
        if not failed and not reused and not factor:
            assert run.seconds >= lower_bound(jobs, limits.slots) - 1e-6


# with 88, the critical path is as long as the work of each: what waits costs the most
@pytest.mark.parametrize("slots", [64, 88])
def test_large_plan_is_within_five_per_cent_of_the_lower_bound(slots: int) -> None:
    jobs = tree_of_packages(20_000, random.Random(0))  # noqa: S311
    started = time.perf_counter()
    run = simulate(jobs, Limits(slots))
    assert run.seconds <= 1.05 * lower_bound(jobs, slots)
    assert len(run.spans) == 20_000
    assert time.perf_counter() - started < 60  # seconds of a busy machine; some in truth


def test_large_plan_with_wrong_expectations_stays_close_to_the_lower_bound() -> None:
    source = random.Random(1)  # noqa: S311
    actual = tree_of_packages(20_000, source)
    expected = {
        name: replace(job, seconds=job.seconds * source.uniform(0.5, 2))
        for name, job in actual.items()
    }
    run = simulate(expected, Limits(64), actual={name: job.seconds for name, job in actual.items()})
    assert run.seconds <= 1.1 * lower_bound(actual, 64)


def test_large_plan_keeps_within_memory() -> None:
    jobs = tree_of_packages(3_000, random.Random(2))  # noqa: S311
    limits = Limits(64, 128 * GIGABYTE)
    assert broken_rules(jobs, limits, simulate(jobs, limits)) == []
