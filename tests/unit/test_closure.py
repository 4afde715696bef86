"""Closures: the packages of a buildroot, and an order of builds, also with cycles."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from random import Random

import pytest

from tasks.planner.closure import Closures, closure, numbers, select
from tasks.planner.plan import Plan
from tests.kit.plans import World, planned, random_world

A, B, C, D = (f"dev-libs/{name}-1" for name in "abcd")


def closures_of(*packages: tuple[str, list[str], list[str]]) -> Closures:
    return closure(World(tuple(planned(c, build=b, run=r) for c, b, r in packages)).plan)


def test_buildroot_has_build_needs_and_what_these_need_to_run() -> None:
    found = closures_of((A, [], []), (B, [A], []), (C, [], [B]), (D, [C], []))
    assert found.buildroot(D) == (B, C)  # what B was built with is not there
    assert found.buildroot(C) == (B,)
    assert found.units == ((A,), (B,), (C,), (D,))


def test_buildroot_has_own_run_needs() -> None:
    assert closures_of((A, [], []), (B, [], [A])).buildroot(B) == (A,)


def test_packages_that_need_each_other_to_run_are_built_without_each_other() -> None:
    found = closures_of((A, [], []), (B, [], [A, C]), (C, [], [B]), (D, [C], []))
    assert (found.buildroot(B), found.buildroot(C)) == ((A,), (A,))
    assert found.buildroot(D) == (A, B, C)
    assert all(len(unit) == 1 for unit in found.units)


def test_tool_that_needs_its_user_to_run_is_built_first() -> None:
    found = closures_of((B, [A], []), (A, [], [B]))
    assert found.units == ((A,), (B,))
    assert (found.buildroot(A), found.buildroot(B)) == ((), (A,))


def test_packages_that_need_each_other_to_be_built_are_one_unit_in_merge_order() -> None:
    found = closures_of((C, [B], []), (B, [C, A], []), (A, [], []), (D, [B], []))
    assert found.units == ((A,), (C, B), (D,))
    assert found.buildroot(C) == (B,)
    assert set(numbers(found.outside((C, B)))) == {0}


def test_cycle_through_the_run_need_of_a_tool_is_one_unit() -> None:
    found = closures_of((A, [B], []), (B, [], [C]), (C, [A], []))
    assert found.units == ((B,), (A, C))
    assert found.buildroot(A) == (C, B)


def test_cycle_of_the_plan_is_one_unit() -> None:
    packages = tuple(planned(cpv) for cpv in (A, B, C))
    assert set(closure(World(packages, cycles=((C, A),)).plan).units) == {(A, C), (B,)}


def test_order_of_a_buildroot_puts_each_after_its_run_needs() -> None:
    found = closures_of((C, [], []), (A, [], [B]), (B, [], [C]), (D, [A, B, C], []))
    assert found.buildroot(D) == (C, B, A)


@pytest.mark.parametrize("seed", range(40))
def test_closures_of_random_plans_equal_those_of_a_plain_walk(seed: int) -> None:
    random = Random(seed)  # noqa: S311
    for _ in range(25):
        plan = random_world(random, random.randint(1, 14)).plan
        check(plan, closure(plan))


def check(plan: Plan, found: Closures) -> None:
    runs = {p.cpv: reach(p.cpv, {q.cpv: q.run_needs for q in plan.packages}) for p in plan.packages}
    hard, waits = {}, {}
    for package in plan.packages:
        brought = [runs[need] for need in package.build_needs]
        hard[package.cpv] = set().union(*brought) - {package.cpv}
        own = set().union(*(runs[need] for need in package.run_needs))
        waits[package.cpv] = (hard[package.cpv] | own) - {package.cpv}
    for package in plan.packages:
        cpv = package.cpv
        knot = {q for q in reach(cpv, waits) if cpv in reach(q, waits)}
        cycle = {q for q in reach(cpv, hard) if cpv in reach(q, hard)}
        buildroot = found.buildroot(cpv)
        assert set(buildroot) == hard[cpv] | (waits[cpv] - knot)
        assert len(set(buildroot)) == len(buildroot)
        place = {each: number for number, each in enumerate(buildroot)}
        for each in buildroot:  # after its run needs, but for cycles of these
            for need in plan.by_cpv[each].run_needs:
                assert (
                    need == cpv
                    or need not in place
                    or place[need] < place[each]
                    or (each in runs[need])
                )
        assert cycle in [set(unit) for unit in found.units]
    done: set[str] = set()
    for unit in found.units:
        assert set().union(*(found.buildroot(cpv) for cpv in unit)) <= done | set(unit)
        assert list(unit) == [p.cpv for p in plan.packages if p.cpv in unit]
        done |= set(unit)
    assert sorted(done) == list(found.cpvs)
    needs = found.unit_needs()
    unit_of = {cpv: unit for unit in found.units for cpv in unit}
    for unit in found.units:
        covered = {cpv for name in reach(unit[0], needs) for cpv in unit_of[name]}
        for cpv in unit:
            assert set(found.buildroot(cpv)) <= covered


def reach(start: str, edges: Mapping[str, object]) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        following = edges[waiting.pop()]
        assert isinstance(following, tuple | list | set)
        for each in following:
            if each not in seen:
                seen.add(each)
                waiting.append(each)
    return seen


@pytest.mark.parametrize("size", [0, 1, 3, 90, 100])
def test_select_takes_the_items_of_a_set_in_order(size: int) -> None:
    chosen = sorted(Random(size).sample(range(100), size))  # noqa: S311
    members = sum(1 << number for number in chosen)
    assert select(range(100), members) == chosen == numbers(members)


def test_chain_as_long_as_a_plan_is_walked_without_recursion() -> None:
    cpvs = [f"dev-libs/p{number}-1" for number in range(3000)]
    chain = [planned(cpvs[0])]
    chain += [planned(new, run=[old]) for old, new in pairwise(cpvs)]
    found = closure(World(tuple(reversed(chain))).plan)
    assert [unit[0] for unit in found.units] == cpvs
    assert found.buildroot(cpvs[-1]) == tuple(cpvs[:-1])
