"""Closures: the packages in whose presence each package is built, and the order of the builds.

The buildroot of a package has its build needs, what these need to run, and so on: without them it
cannot be built (its *hard* closure). It also has its own run needs with theirs, for the scripts
that run when it is merged. A package is never in its own buildroot.

Needs may form cycles, of two kinds:

- Packages whose hard closures contain each other are one *unit*: they are built together, in two
  rounds (`builder.decide`). A cycle that the plan names is one, too.
- Otherwise one of the needs in the cycle is the package's own run need. Portage breaks such a cycle
  there, and so does this: a package of the cycle is built without those other packages of it that
  only its own run needs would bring.

A set of packages is an integer, bit N for the package with number N: 20,000 closures take 50 MB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import TypeVar

from tasks.planner.plan import Plan, PlannedPackage

_ONES = re.compile("1").finditer
_ZERO_AND_ONE = bytes.maketrans(b"01", b"\0\1")
T = TypeVar("T")
Edges = Sequence[Iterable[int]]


@dataclass(frozen=True)
class Closures:
    """The closure of each package of a plan.

    `cpvs` is sorted; the number of a package is its place there. `buildroots` has a set for each
    package. `units` has the packages in the order of their builds: each unit comes after what its
    buildroots have. A unit is one package, or those of a cycle in merge order.
    """

    cpvs: tuple[str, ...]
    buildroots: tuple[int, ...] = field(repr=False)
    units: tuple[tuple[str, ...], ...]
    _layer: tuple[int, ...] = field(repr=False)
    _needs: tuple[tuple[int, ...], ...] = field(repr=False)  # those of the plan

    def buildroot(self, cpv: str) -> tuple[str, ...]:
        """The packages in the buildroot of a package, each after what it needs to run.

        Packages that need each other to run stand side by side, in the plan's order. Of a cycle,
        it has the members that the package needs, which are there in the second round.
        """
        members = sorted(numbers(self.buildroots[self.number[cpv]]), key=self._layer.__getitem__)
        return tuple(self.cpvs[member] for member in members)

    def outside(self, unit: Sequence[str]) -> int:
        """The set of packages that must be there before a unit is built: without its own."""
        needed = own = 0
        for cpv in unit:
            needed |= self.buildroots[self.number[cpv]]
            own |= 1 << self.number[cpv]
        return needed & ~own

    def unit_needs(self) -> dict[str, list[str]]:
        """For each unit the units that it waits for, by the names of their first packages.

        Units that others among them wait for anyway are left out, so that the graph stays small.
        """
        place = {cpv: place for place, unit in enumerate(self.units) for cpv in unit}
        unit_of = [place[cpv] for cpv in self.cpvs]  # by number
        covered: list[int] = []  # by unit: its packages, and all that must be there before
        needs: dict[str, list[str]] = {}
        for unit in self.units:
            rest = self.outside(unit)
            everything = rest | sum(1 << self.number[cpv] for cpv in unit)
            direct = {need for cpv in unit for need in self._needs[self.number[cpv]]}
            names = []
            while rest:  # direct needs mostly bring all others along
                candidates = sorted(direct or numbers(rest), key=unit_of.__getitem__, reverse=True)
                direct = set()
                for number in candidates:
                    if rest >> number & 1:
                        needed = unit_of[number]
                        names.append(self.units[needed][0])
                        rest &= ~covered[needed]
                        everything |= covered[needed]
            covered.append(everything)
            needs[unit[0]] = names
        return needs

    @cached_property
    def number(self) -> dict[str, int]:
        """The number of each package."""
        return {cpv: number for number, cpv in enumerate(self.cpvs)}


def closure(plan: Plan) -> Closures:
    """Compute the closure of each package of a plan."""
    graph = _Graph(plan)
    total = len(graph.cpvs)
    brought = _run_closures(graph)
    unit_of = _places(_components([*graph.hard(), *graph.runs], graph.order))
    knot_of = _places(_components([*graph.soft(), *graph.runs], graph.order))
    knots: dict[int, int] = {}  # packages that wait for each other, with own run needs counted
    for number in range(total):
        knots[knot_of[number]] = knots.get(knot_of[number], 0) | 1 << number
    buildroots = []
    for number in range(total):
        hard = _union(brought, graph.builds[number])
        own_run_needs = _union(brought, graph.run_needs[number]) & ~knots[knot_of[number]]
        buildroots.append((hard | own_run_needs) & ~(1 << number))
    units: dict[tuple[int, int], list[str]] = {}
    for number in graph.order:
        units.setdefault((knot_of[number], unit_of[number]), []).append(graph.cpvs[number])
    return Closures(
        graph.cpvs,
        tuple(buildroots),
        tuple(tuple(unit) for _, unit in sorted(units.items())),
        _layer_order(graph),
        tuple((*build, *run) for build, run in zip(graph.builds, graph.run_needs, strict=True)),
    )


def numbers(members: int) -> list[int]:
    """The numbers in a set, the lowest first."""
    return [match.start() for match in _ONES(bin(members)[:1:-1])]


def select(items: Sequence[T], members: int) -> list[T]:
    """The items whose numbers are in a set, in their order."""
    if members.bit_count() * 16 < len(items):
        return [items[number] for number in numbers(members)]
    return list(compress(items, bin(members)[:1:-1].encode().translate(_ZERO_AND_ONE)))


class _Graph:
    """The needs of a plan by number.

    N packages are 2N nodes: node I is "package I is built", node N + I "package I can run". Sets of
    needs stay as small as the plan has them: no node has an edge to each package of a closure.
    """

    def __init__(self, plan: Plan) -> None:
        self.cpvs = tuple(sorted(package.cpv for package in plan.packages))
        self._number = {cpv: number for number, cpv in enumerate(self.cpvs)}
        self.order = [self._number[package.cpv] for package in plan.packages]
        by_number: list[PlannedPackage] = [plan.by_cpv[cpv] for cpv in self.cpvs]
        self.builds = [self._numbers(package.build_needs) for package in by_number]
        self.run_needs = [self._numbers(package.run_needs) for package in by_number]
        total = len(self.cpvs)
        self.runs: Edges = [
            (number, *(total + need for need in needs))
            for number, needs in enumerate(self.run_needs)
        ]
        self._rings: list[list[int]] = [[] for _ in self.cpvs]
        for cycle in plan.cycles:  # edges around, so that it is one component
            members = self._numbers(cycle)
            for member, following in zip(members, [*members[1:], *members[:1]], strict=True):
                self._rings[member].append(following)

    def hard(self) -> Edges:
        """The edges of "is built" without own run needs."""
        total = len(self.cpvs)
        return [
            (*(total + need for need in needs), *ring)
            for needs, ring in zip(self.builds, self._rings, strict=True)
        ]

    def soft(self) -> Edges:
        """The edges of "is built" with own run needs."""
        total = len(self.cpvs)
        return [
            (*hard, *(total + need for need in needs))
            for hard, needs in zip(self.hard(), self.run_needs, strict=True)
        ]

    def _numbers(self, cpvs: Iterable[str]) -> list[int]:
        return [self._number[cpv] for cpv in cpvs]


def _run_closures(graph: _Graph) -> list[int]:
    """For each package, the set of itself and all that it needs to run, directly or not."""
    closures = [0] * len(graph.cpvs)
    for component in _components(graph.run_needs, graph.order):
        members = 0
        for number in component:
            members |= 1 << number | _union(closures, graph.run_needs[number])
        for number in component:
            closures[number] = members
    return closures


def _layer_order(graph: _Graph) -> tuple[int, ...]:
    """For each package its place in an order in which each comes after what it needs to run."""
    merged = {number: place for place, number in enumerate(graph.order)}
    components = _components(graph.run_needs, graph.order)
    ordered = [
        number for component in components for number in sorted(component, key=merged.__getitem__)
    ]
    places = [0] * len(ordered)
    for place, number in enumerate(ordered):
        places[number] = place
    return tuple(places)


def _union(sets: Sequence[int], members: Iterable[int]) -> int:
    union = 0
    for member in members:
        union |= sets[member]
    return union


def _places(components: Iterable[Sequence[int]]) -> dict[int, int]:
    """The number of its component, by node."""
    return {node: place for place, nodes in enumerate(components) for node in nodes}


def _components(edges: Edges, start: Iterable[int]) -> list[list[int]]:
    """The strongly connected components, each after those that it has edges to (Tarjan, 1972)."""
    reached: dict[int, int] = {}  # by node: when the walk came to it
    lowest: dict[int, int] = {}  # the earliest node on the path that it leads back to
    path: list[int] = []
    open_nodes: set[int] = set()
    components: list[list[int]] = []
    walk: list[tuple[int, Iterator[int]]] = []

    def enter(node: int) -> None:
        reached[node] = lowest[node] = len(reached)
        path.append(node)
        open_nodes.add(node)
        walk.append((node, iter(edges[node])))

    for first in start:
        if first not in reached:
            enter(first)
        while walk:
            node, following = walk[-1]
            for after in following:
                if after not in reached:
                    enter(after)
                    break
                if after in open_nodes:
                    lowest[node] = min(lowest[node], reached[after])
            else:
                walk.pop()
                if walk:
                    before = walk[-1][0]
                    lowest[before] = min(lowest[before], lowest[node])
                if lowest[node] == reached[node]:
                    component: list[int] = []
                    while not component or component[-1] != node:
                        component.append(path.pop())
                    open_nodes.difference_update(component)
                    components.append(component)
    return components
