"""Jobs to be scheduled: random graphs, and one of the shape of a large plan."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tasks.planner.schedule import Job, Limits, Simulation

GIGABYTE = 1 << 30


def random_jobs(source: random.Random) -> tuple[dict[str, Job], Limits]:
    """A small graph with anything in it: long and short jobs, memory, groups, priorities."""
    names = [f"c/p{number}-1" for number in range(source.randint(1, 24))]
    density = source.choice([0.0, 0.1, 0.3, 0.8])
    memory = source.choice([None, 1, 8])
    jobs = {
        name: Job(
            tuple(other for other in names[:number] if source.random() < density),
            source.choice([0.0, 1.0, 5.0, source.uniform(0, 100)]),
            source.choice([0, 0, 1, 3, 20]),  # 20 is more than all memory
            source.choice([0, 0, 0, -1, 5]),
            frozenset(group for group in range(3) if source.random() < 0.15),
        )
        for number, name in enumerate(names)
    }
    shuffled = source.sample(names, len(names))
    return {name: jobs[name] for name in shuffled}, Limits(source.randint(1, 8), memory)


def tree_of_packages(count: int, source: random.Random) -> dict[str, Job]:
    """Jobs of the shape of a Gentoo tree: a chain at the bottom, few deep needs, long tails.

    Most packages take seconds; one in a hundred takes half an hour or more, and gigabytes.
    """
    names = [f"c/p{number}-1" for number in range(count)]
    jobs = {}
    for number, name in enumerate(names):
        few = min(number, source.choice([0, 1, 2, 3, 5, 8]))
        # popular packages are at the bottom
        needs = {names[int(number * source.random() ** 2)] for _ in range(few)}
        if 0 < number < 30:
            needs.add(names[number - 1])
        large = source.random() < 0.01
        seconds = source.uniform(900, 5400) if large else source.lognormvariate(3.0, 1.0)
        memory = source.uniform(4, 24) if large else source.uniform(0.1, 2)
        jobs[name] = Job(tuple(sorted(needs)), seconds, int(memory * GIGABYTE))
    return jobs


def broken_rules(jobs: Mapping[str, Job], limits: Limits, run: Simulation) -> list[str]:
    """The rules that a simulated run breaks, at any moment of it."""
    broken = []
    spans, ended = run.spans, {*run.spans, *run.reused}
    if ended | run.skipped.keys() != jobs.keys() or not ended.isdisjoint(run.skipped):
        broken.append("a job neither ran nor was reused nor skipped, or both")
    for name in ended:
        for need in jobs[name].needs:
            if need not in ended or need in run.failed:
                broken.append(f"{name} ran without {need}")
            elif name in spans and need in spans and spans[need][1] > spans[name][0]:
                broken.append(f"{name} started before {need} was finished")
    for moment in {start for start, _ in spans.values()}:
        broken += _broken_at(jobs, limits, [n for n, (a, z) in spans.items() if a <= moment < z])
    return broken


def _broken_at(jobs: Mapping[str, Job], limits: Limits, running: list[str]) -> list[str]:
    broken = []
    if len(running) > limits.slots:
        broken.append(f"{running} are too many")
    memory = sum(jobs[name].memory for name in running)
    if limits.memory is not None and len(running) > 1 and memory > limits.memory:
        broken.append(f"{running} need too much memory")
    groups = [group for name in running for group in jobs[name].groups]
    if len(groups) != len(set(groups)):
        broken.append(f"{running} must not run together")
    return broken
