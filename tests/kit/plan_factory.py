"""Plans of a few packages, and random ones."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.planner.plan import ConfigFile, Distfile, Eclass, Plan, PlannedPackage, SeedPackage
from tasks.portage.inside.plan import cycles

PACKAGE = PlannedPackage(
    cpv="dev-libs/popt-1.19",
    repo="gentoo",
    slot="0",
    sub_slot="1",
    eapi="8",
    use=("amd64", "nls"),
    dependencies={"RDEPEND": "app-arch/bzip2"},
    restrict=("test",),
    properties=(),
    phases=("compile", "install"),
    eclasses=(Eclass("static-libs", "gentoo"),),
    distfiles=(Distfile("popt-1.19.tar.gz", 3, {"SHA512": "a" * 128}),),
    settings={"CFLAGS": "-O2 -pipe", "LDFLAGS": ""},
    config_files=(ConfigFile("/etc/portage/bashrc", "b" * 128),),
    build_needs=(),
    run_needs=(),
    asks_versions=True,
)
SEED = (
    SeedPackage("sys-devel/gcc-14.2.0", "1" * 64, toolchain=True),
    SeedPackage("sys-libs/zlib-1.3-r2", "2" * 64, toolchain=False),
)


def dice_of(seed: int) -> random.Random:
    """Random numbers that are the same in each run."""
    return random.Random(seed)  # noqa: S311


def package(cpv: str, /, **changes: Any) -> PlannedPackage:
    """A package like PACKAGE, with another name and other values."""
    return replace(PACKAGE, cpv=cpv, **changes)


def plan(*packages: PlannedPackage, **changes: Any) -> Plan:
    """A plan of these packages (else of PACKAGE), with the cycles that they have."""
    chosen = packages or (PACKAGE,)
    circles = cycles(
        {each.cpv: each.build_needs for each in chosen},
        {each.cpv: each.run_needs for each in chosen},
    )
    made = Plan("3.0.83", chosen, SEED, tuple(map(tuple, circles)))
    return replace(made, **changes)


def random_graph(dice: random.Random, size: int) -> dict[str, list[str]]:
    """Edges between random packages, sorted; no package has one to itself."""
    names = [f"cat/p{number}x-1" for number in range(size)]
    return {
        name: sorted({other for other in dice.choices(names, k=dice.randrange(3)) if other != name})
        for name in names
    }


def random_plan(dice: random.Random, size: int) -> Plan:
    """A plan of random needs, flags and settings."""
    build, run = random_graph(dice, size), random_graph(dice, size)
    return plan(
        *(
            package(
                cpv,
                use=tuple(sorted(dice.sample(("a", "b", "c"), k=dice.randrange(4)))),
                settings={name: dice.choice("xyz") for name in dice.sample(("A", "B"), k=1)},
                slot=dice.choice("01"),
                build_needs=tuple(build[cpv]),
                run_needs=tuple(run[cpv]),
                seed_needs=tuple(sorted(dice.sample([each.cpv for each in SEED], k=1))),
            )
            for cpv in build
        )
    )


def reaches(edges: Mapping[str, Sequence[str]], start: str, end: str) -> bool:
    """Tell whether a way of at least one edge leads from one package to another."""
    seen: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        here = waiting.pop()
        if here == end:
            return True
        if here not in seen:
            seen.add(here)
            waiting += edges[here]
    return False
