"""Differences between two plans: data for programs, sentences for people."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tasks.planner.plan import ConfigFile, Distfile, Eclass, Plan, SeedPackage
from tasks.planner.plan_changes import Change, compare
from tests.kit.plan_factory import PACKAGE, SEED, dice_of, package, plan, random_plan

CPV = PACKAGE.cpv
ZLIB = package("sys-libs/zlib-1.3")
OTHER_FILES = (ConfigFile("/etc/portage/bashrc", "c" * 128),)
CHANGES: list[tuple[dict[str, Any], Change, str]] = [
    (
        {"repo": "ours"},
        Change("plan-repo-changed", CPV, before="gentoo", after="ours"),
        "repository",
    ),
    (
        {"sub_slot": "2"},
        Change("plan-sub-slot-changed", CPV, before="1", after="2"),
        "sub-slot '1' -> '2'",
    ),
    ({"eapi": "7"}, Change("plan-eapi-changed", CPV, before="8", after="7"), "EAPI '8' -> '7'"),
    (
        {"use": ("amd64", "static-libs")},
        Change("plan-words-changed", CPV, "USE", added=("static-libs",), removed=("nls",)),
        "USE +static-libs, -nls",
    ),
    (
        {"restrict": ()},
        Change("plan-words-changed", CPV, "RESTRICT", removed=("test",)),
        "RESTRICT -test",
    ),
    (
        {"eclasses": (Eclass("static-libs", "ours"),)},
        Change(
            "plan-words-changed",
            CPV,
            "INHERITED",
            added=("static-libs::ours",),
            removed=("static-libs::gentoo",),
        ),
        "INHERITED +static-libs::ours",
    ),
    (
        {"settings": {"CFLAGS": "-O3", "LDFLAGS": ""}},
        Change("plan-setting-changed", CPV, "CFLAGS", "-O2 -pipe", "-O3"),
        "CFLAGS '-O2 -pipe' -> '-O3'",
    ),
    (
        {"settings": {"CFLAGS": "-O2 -pipe"}},
        Change("plan-setting-changed", CPV, "LDFLAGS", "", None),
        "LDFLAGS '' -> nothing",
    ),
    (
        {"dependencies": {"RDEPEND": "app-arch/bzip2", "BDEPEND": "x/y"}},
        Change("plan-dependency-changed", CPV, "BDEPEND", None, "x/y"),
        "BDEPEND nothing -> 'x/y'",
    ),
    (
        {"distfiles": (Distfile("popt-1.19.tar.gz", 4, {"SHA512": "a" * 128}),)},
        Change(
            "plan-distfile-changed",
            CPV,
            "popt-1.19.tar.gz",
            f"3 SHA512={'a' * 128}",
            f"4 SHA512={'a' * 128}",
        ),
        "distfile popt-1.19.tar.gz",
    ),
    (
        {"config_files": OTHER_FILES},
        Change("plan-config-file-changed", CPV, "/etc/portage/bashrc", "b" * 128, "c" * 128),
        "/etc/portage/bashrc",
    ),
    (
        {"build_needs": (ZLIB.cpv,)},
        Change("plan-needs-changed", CPV, "build", added=("sys-libs/zlib:0",)),
        "needs (build) +sys-libs/zlib:0",
    ),
    (
        {"seed_needs": (SEED[0].cpv,)},
        Change("plan-needs-changed", CPV, "seed", added=(SEED[0].cpv,)),
        "needs (seed) +sys-devel/gcc-14.2.0",
    ),
]


@pytest.mark.parametrize(("fields", "wanted", "words"), CHANGES, ids=lambda each: str(each)[:40])
def test_changed_package_has_its_change(fields: dict[str, Any], wanted: Change, words: str) -> None:
    changes = compare(plan(PACKAGE, ZLIB), plan(package(CPV, **fields), ZLIB))
    assert changes == [wanted]
    assert words in str(changes[0])
    assert json.loads(json.dumps(changes[0].plain()))["sentence"] == str(changes[0])


def test_bumped_package_is_told_once() -> None:
    consumer = package("a/consumer-1", run_needs=(ZLIB.cpv,))
    bumped = package("sys-libs/zlib-1.4")
    after = plan(package("a/consumer-1", run_needs=(bumped.cpv,)), bumped)
    assert compare(plan(consumer, ZLIB), after) == [
        Change("plan-version-changed", bumped.cpv, before=ZLIB.cpv, after=bumped.cpv)
    ]


def test_packages_come_and_go_by_slot() -> None:
    second = package("sys-libs/zlib-2.0", slot="2")
    assert compare(plan(ZLIB), plan(ZLIB, second)) == [Change("plan-package-added", second.cpv)]
    assert compare(plan(ZLIB, second), plan(ZLIB)) == [Change("plan-package-removed", second.cpv)]


def test_seed_portage_and_cycles_are_compared() -> None:
    made = plan()
    newer = SeedPackage(SEED[0].cpv, "3" * 64, toolchain=True)
    after = replace(made, portage="3.0.84", seed=(newer,))
    assert [change.code for change in compare(made, after)] == [
        "plan-portage-changed",
        "plan-seed-changed",
        "plan-seed-removed",
    ]
    one = package("a/one-1", build_needs=("a/two-1",))
    two, better = package("a/two-1", build_needs=("a/one-1",)), package("a/two-1")
    codes = [change.code for change in compare(plan(one, two), plan(one, better))]
    assert codes == ["plan-cycle-removed", "plan-needs-changed"]


def test_order_counts_for_bashrcs_alone() -> None:
    files = (ConfigFile("/a", "a" * 128), ConfigFile("/b", "b" * 128))
    first, second = package(CPV, config_files=files), package(CPV, config_files=files[::-1])
    assert compare(plan(first, ZLIB), plan(ZLIB, first)) == []
    assert compare(plan(first), plan(second)) == [Change("plan-config-files-reordered", CPV)]


@pytest.mark.parametrize("seed", range(60))
def test_plans_differ_exactly_if_there_are_changes(seed: int) -> None:
    dice = dice_of(seed)
    first = random_plan(dice, 4)
    second = random_plan(dice, 4)

    def content(each: Plan) -> object:
        return sorted(map(repr, each.packages)), each.seed, set(each.cycles)

    assert compare(first, first) == []
    assert bool(compare(first, second)) == (content(first) != content(second))
    assert all(str(change) for change in compare(first, second))
