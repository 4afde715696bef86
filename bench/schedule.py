"""Scheduling: simulated builds of a large plan, against the lower bound and against plan order.

No package is built. The seconds of a simulated row are those that a virtual clock shows; its usual
way starts packages in the order of the plan as soon as their needs are finished, as
`emerge --jobs` does. The lower bound is the longer of the critical path and each buildroot's share
of the work: no schedule gets below it. Goal: with 64 buildroots within 5 % of it. The last row is
the time that the decisions take.

The plan is generated: few deep needs, most packages small, one in a hundred large.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace

from bench.measure import Bench, Size, Table, row
from tasks.planner.schedule import Job, Limits, lower_bound, ranks, simulate
from tests.kit.job_graphs import GIGABYTE, tree_of_packages

PACKAGES = 20_000
SLOTS = 64


def run(table: Table, size: Size) -> None:
    """Simulate each case with as many plans as there are pairs."""
    count = int(PACKAGES * size.scale)
    plans = [tree_of_packages(count, random.Random(n)) for n in range(size.pairs)]  # noqa: S311
    work = [sum(job.seconds for job in plan.values()) for plan in plans]
    paths = [max(-rank.path for rank in ranks(plan).values()) for plan in plans]
    # where work and path are equal, packages that wait cost the most
    even = max(1, round(work[0] / paths[0]))
    facts: dict[str, str | int] = {"packages": count, "buildroots": SLOTS}
    decided = []
    for name, limits in (
        (f"{SLOTS} buildroots", Limits(SLOTS)),
        (f"{even} buildroots: path as long as work", Limits(even)),
        (f"{SLOTS} buildroots, 192 GB of memory", Limits(SLOTS, 192 * GIGABYTE)),
    ):
        start = time.process_time()
        times = [simulate(plan, limits).seconds for plan in plans]
        decided.append((time.process_time() - start) / len(plans))
        bounds = [_bound(plan, limits) for plan in plans]
        table.add(row(name, times, [_in_plan_order(plan, limits) for plan in plans]))
        facts[f"above the lower bound, {name}"] = _excess(times, bounds)
    wrong = [_with_wrong_expectations(plan, Limits(SLOTS)) for plan in plans]
    table.add(row(f"{SLOTS} buildroots, expectations wrong by 2", wrong))
    bounds = [lower_bound(plan, SLOTS) for plan in plans]
    facts["above the lower bound, expectations wrong by 2"] = _excess(wrong, bounds)
    table.add(row("processor time of all decisions", decided[:1]))
    table.save(facts)


BENCH = Bench(run, full=Size(5), quick=Size(2, 0.1))


def _bound(plan: Mapping[str, Job], limits: Limits) -> float:
    """The lower bound; where memory is limited, no more than all of it can be used either."""
    bound = lower_bound(plan, limits.slots)
    if limits.memory is None:
        return bound
    used = sum(job.seconds * min(job.memory, limits.memory) for job in plan.values())
    return max(bound, used / limits.memory)


def _in_plan_order(plan: Mapping[str, Job], limits: Limits) -> float:
    ordered = {name: replace(job, priority=-n) for n, (name, job) in enumerate(plan.items())}
    return simulate(ordered, limits).seconds


def _with_wrong_expectations(plan: Mapping[str, Job], limits: Limits) -> float:
    """The seconds of a build whose packages take from half to twice what was expected."""
    source = random.Random(len(plan))  # noqa: S311
    expected = {
        name: replace(job, seconds=job.seconds * 2 ** source.uniform(-1, 1))
        for name, job in plan.items()
    }
    actual = {name: job.seconds for name, job in plan.items()}
    return simulate(expected, limits, actual=actual).seconds


def _excess(times: list[float], bounds: list[float]) -> str:
    most = max(seconds / bound for seconds, bound in zip(times, bounds, strict=True))
    return f"{(most - 1) * 100:.2f} % at most"
