"""Plans: seconds and memory for keys and decisions of generated plans, without building anything.

Goals: plan and keys of 2,000 packages below 5 s, of 20,000 below 30 s and 1 GB; of these, keys and
decisions take 2 s, and 15 s and 500 MB.

A package of a generated plan needs some of those before it, mostly near ones, and now and then a
central one: its closure has some hundred packages, as a desktop's have.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from random import Random

from bench.measure import Bench, Size, Table, rounds, row
from tasks.planner.closure import closure
from tasks.planner.decide import (
    Decision,
    EarlierBuild,
    MayBuild,
    Progress,
    Reused,
    WillBuild,
    decide,
)
from tasks.planner.keys import own_inputs
from tasks.planner.plan import PlannedPackage
from tests.kit.plans import StoredPackage, World, ebuild, planned

COUNTS = (2_000, 20_000)
# as many as an ordinary make.conf and profile set
SETTINGS = {f"VARIABLE_{number}": f"value {number} " * 3 for number in range(40)}


def run(table: Table, size: Size) -> None:
    """Measure each plan in a process of its own, so that each has its own peak of memory."""
    facts: dict[str, int] = {}
    for count in COUNTS:
        scaled = int(count * size.scale)
        runs = []
        for _ in rounds(f"a plan of {scaled} packages", size.pairs):
            words = [sys.executable, "-m", "bench.plans", str(scaled)]
            runs.append(json.loads(subprocess.check_output(words, text=True)))
        memory = statistics.median(each["memory_mb"] for each in runs)
        for name in runs[0]["seconds"]:
            times = [each["seconds"][name] for each in runs]
            table.add(row(f"{name}, {scaled} packages", times, memory_mb=memory))
        facts |= {f"{name}, {scaled} packages": value for name, value in runs[0]["facts"].items()}
    table.save(facts)


BENCH = Bench(run, full=Size(5), quick=Size(2, 0.5))


@dataclass
class Clock:
    """Seconds by the name of what took them."""

    seconds: dict[str, float]

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True)
class Result:
    """Figures of one plan: seconds by the name of a step, facts about it, and MB above the plan."""

    seconds: dict[str, float]
    facts: dict[str, int]
    memory_mb: float


def measure(count: int) -> Result:
    """Decide about one plan: with an empty store, with nothing changed, after two changes."""
    world = generated_world(count)
    plan, objects = world.plan, world.objects
    plan.by_cpv  # noqa: B018 - computed once, by whoever parses the plan
    before_mb = _peak_mb()
    clock = Clock({})
    with clock("closures"):
        closures = closure(plan)
    with clock("order for the scheduler"):
        needs = closures.unit_needs()
    with clock("own inputs"):
        own = own_inputs(plan, closures, objects, world.environment)
        digests = {inputs.digest for inputs in own.values()}
    entries: dict[str, StoredPackage] = {}
    progress = Progress(closures, own, entries.get)
    with clock("keys of a whole build"):
        _build_all(progress, entries)

    def history(package: PlannedPackage) -> EarlierBuild:
        cpv = package.cpv
        buildroot = partial(progress.buildroot, cpv)
        return EarlierBuild(own[cpv], progress.keys[cpv], progress.identities[cpv], buildroot)

    def decisions(name: str, changed: World) -> list[Decision[StoredPackage]]:
        inputs = own_inputs(changed.plan, closures, changed.objects, changed.environment)
        with clock(f"decisions, {name}"):
            return list(decide(changed.plan, closures, inputs, entries.get, history).values())

    middle = ebuild(plan.packages[count // 10].cpv)
    none = _classes(decisions("nothing changed", world))
    one = _classes(decisions("one ebuild changed", world.with_id(middle, "1.0")))
    every = _classes(decisions("all changed", replace(world, portage="3.0.84")))
    if (len(digests), none[Reused], every[WillBuild]) != (count, count, count):
        raise RuntimeError(f"wrong decisions: {none}, {every}")
    sizes = [buildroot.bit_count() for buildroot in closures.buildroots]
    facts = {
        "packages in a buildroot, mean": sum(sizes) // count,
        "packages in a buildroot, most": max(sizes),
        "edges for the scheduler": sum(map(len, needs.values())),
        "will be built, one ebuild changed": one[WillBuild],
        "may be built, one ebuild changed": one[MayBuild],
    }
    return Result(clock.seconds, facts, _peak_mb() - before_mb)


def _build_all(progress: Progress[StoredPackage], entries: dict[str, StoredPackage]) -> None:
    """Build everything that the store lacks; an identity is made up."""
    waiting = progress.ready()
    while waiting:
        unit = waiting.pop()
        identities = {cpv: f"{len(entries):064x}" for cpv in unit.packages}
        for cpv, key in unit.keys.items():
            entries[key] = StoredPackage(identities[cpv])
        progress.built(unit, identities)
        waiting += progress.ready()


def _classes(decisions: Iterable[Decision[StoredPackage]]) -> Counter[type]:
    return Counter(type(decision) for decision in decisions)


def generated_world(count: int) -> World:
    """A world of many packages; the same one for the same number."""
    random = Random(count)  # noqa: S311
    cpvs = [f"cat-{number % 97}/package{number}-1.2.3" for number in range(count)]
    packages = []
    for number, cpv in enumerate(cpvs):
        near = cpvs[max(0, number - 200) : number]
        central = cpvs[: min(number, 150)]
        build = {random.choice(each) for each in (near, near, central, central) if each}
        needed = (near, near, central)
        run = {random.choice(each) for each in needed if each and random.random() < 0.55}
        packages.append(
            planned(
                cpv,
                build=sorted(build),
                run=sorted(run),
                eclasses=[f"eclass-{random.randrange(200)}" for _ in range(4)],
                use=[f"flag-{random.randrange(50)}" for _ in range(5)],
                distfiles={f"{number}.tar.xz": f"{number:0128x}"},
                settings=SETTINGS,
            )
        )
    return World(tuple(packages))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1])))))
