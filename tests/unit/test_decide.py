"""Decisions: what is built after any change of any plan, and what is not.

A simulated builder (tests/kit/plans.py) knows what really matters. After each change, the packages
of an incremental build equal those of a build from nothing, and nothing was built without need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

import pytest

from tasks.causes import Cause
from tasks.planner.closure import closure
from tasks.planner.decide import Cycle, EarlierBuild, MayBuild, Progress, Reused, WillBuild
from tasks.planner.input_changes import (
    BuiltTogether,
    ConfigFileAdded,
    CycleChanged,
    DependencyAdded,
    DependencyChanged,
    DependencyMayChange,
    DependencyRemoved,
    DependencyReplaced,
    DistfileChanged,
    EbuildChanged,
    EbuildFilesChanged,
    EclassChanged,
    NoEarlierBuild,
    PackageMissing,
    PortageChanged,
    RecipeChanged,
    SeedChanged,
    SeedPackagesChanged,
    ToolchainChanged,
    UseChanged,
    VersionChanged,
    differences,
)
from tasks.planner.keys import own_inputs
from tasks.planner.plan import PlannedPackage, SeedPackage
from tests.kit.keys import input_key
from tests.kit.plans import (
    SEED,
    Outcome,
    Store,
    StoredPackage,
    World,
    build,
    ebuild,
    eclass,
    files,
    planned,
    predict,
    random_change,
    random_world,
)

POPT, TOOL, APP, OTHER = "dev-libs/popt-1", "dev-build/tool-1", "app-misc/app-1", "app-misc/other-1"
XZ = SEED[1].cpv
WORLD = World(
    (
        planned(POPT, eclasses=["toolchain-names"], distfiles={"popt.tar.gz": "aa"}),
        planned(TOOL, run=[POPT], seed=[XZ]),
        planned(APP, build=[TOOL], eclasses=["toolchain-names", "xdg"]),
        planned(OTHER, config_files={"/etc/portage/patches/app-misc/other/a.patch": "1"}),
    )
)


# Any change


@pytest.mark.parametrize("seed", range(60))
def test_any_change_builds_what_its_keys_demand_and_no_more(seed: int) -> None:
    random = Random(seed)  # noqa: S311
    for _ in range(12):
        world = random_world(random, random.randint(1, 12))
        store = Store()
        assert set(build(world, store, random).built) == {p.cpv for p in world.packages}
        history = [world]
        for _ in range(6):
            back = random.random() < 0.1
            world = random.choice(history) if back else random_change(random, world)
            history.append(world)
            check_change(random, world, store)


def test_any_change_of_a_large_plan() -> None:
    random = Random(1)  # noqa: S311
    world, store = random_world(random, 150), Store()
    for _ in range(15):
        check_change(random, world, store)
        world = random_change(random, world)


def check_change(random: Random, world: World, store: Store) -> None:
    entries, newest = dict(store.entries), dict(store.newest)
    outcome = build(world, store, random)
    scratch = build(world, Store(), random)
    progress = outcome.progress
    # nothing was missed: the packages are those of a build from nothing
    assert progress.identities == scratch.progress.identities
    assert progress.keys == scratch.progress.keys
    # nothing was needless: what was built had no entry, or a package of its cycle had none
    lacking = {
        cpv
        for unit in outcome.closures.units
        if any(progress.keys[each] not in entries for each in unit)
        for cpv in unit
    }
    assert set(outcome.built) == lacking
    assert len(outcome.built) == len(set(outcome.built))
    assert progress.reused.keys() == progress.identities.keys() - lacking
    check_predictions(outcome, entries)
    check_reasons(world, outcome, Store(entries, newest))


def check_predictions(outcome: Outcome, entries: dict[str, StoredPackage]) -> None:
    progress = outcome.progress
    open_packages = {cpv for cpv, d in outcome.decisions.items() if not isinstance(d, Reused)}
    for cpv, decision in outcome.decisions.items():
        if isinstance(decision, Reused):
            assert cpv not in outcome.built
            assert decision.key == progress.keys[cpv]
            continue
        assert decision.causes
        certain = not open_packages & set(outcome.closures.buildroot(cpv))
        if isinstance(decision, MayBuild):
            assert not certain
        elif certain:
            assert cpv in outcome.built
        elif cpv not in outcome.built:  # an output equals one of long ago
            assert progress.keys[cpv] in entries
    assert not cut_off(outcome) & set(outcome.built)


def cut_off(outcome: Outcome) -> set[str]:
    """The packages that might have been built and were reused."""
    may = {cpv for cpv, each in outcome.decisions.items() if isinstance(each, MayBuild)}
    return may & outcome.progress.reused.keys()


def check_reasons(world: World, outcome: Outcome, before: Store) -> None:
    """What was built differs in something that can be named; what is equal has its old key."""
    plan = world.plan
    own = own_inputs(plan, outcome.closures, world.objects, world.environment)
    for package in world.packages:
        earlier = before.earlier(package)
        if earlier is None:
            continue
        buildroot = outcome.progress.buildroot(package.cpv)
        old = earlier.buildroot()
        causes = differences(earlier.own, own[package.cpv], old, buildroot)
        seen, seen_then = (
            each if package.asks_versions else {(cpv.rpartition("-")[0], each[cpv]) for cpv in each}
            for each in (buildroot, old)
        )
        equal = earlier.own.digest == own[package.cpv].digest and seen == seen_then
        assert bool(causes) is not equal
        unit = next(unit for unit in outcome.closures.units if package.cpv in unit)
        alone = len(unit) == 1 and input_key(earlier.own, old) == earlier.key
        if package.cpv in outcome.built and alone and earlier.key in before.entries:
            assert causes


def test_comment_is_cut_off_at_the_package_that_has_it() -> None:
    random = Random(7)  # noqa: S311
    for _ in range(300):
        world, store = random_world(random, random.randint(2, 12)), Store()
        build(world, store)
        package = random.choice(world.packages)
        outcome = build(world.with_id(ebuild(package.cpv), "0.1"), store)
        unit = next(unit for unit in outcome.closures.units if package.cpv in unit)
        assert set(outcome.built) == set(unit)
        waiting = {
            cpv
            for cpv in outcome.closures.cpvs
            if set(outcome.closures.buildroot(cpv)) & set(unit) and cpv not in unit
        }
        may = {cpv for cpv, d in outcome.decisions.items() if isinstance(d, MayBuild)}
        assert waiting <= may
        assert cut_off(outcome) == may


def test_nothing_changed_builds_nothing() -> None:
    store = Store()
    build(WORLD, store)
    outcome = build(WORLD, store)
    assert outcome.built == ()
    assert all(isinstance(each, Reused) for each in outcome.decisions.values())


def test_killed_build_continues_with_what_is_left() -> None:
    """The store is all that counts: what was finished before is reused, whatever was planned."""
    random = Random(3)  # noqa: S311
    for _ in range(100):
        world, store = random_world(random, 10), Store()
        whole = build(world, Store(), random)
        half = set(random.sample(whole.built, len(whole.built) // 2))
        for cpv in half:
            identity = StoredPackage(whole.progress.identities[cpv])
            store.entries[whole.progress.keys[cpv]] = identity
        outcome = build(world, store, random)
        assert outcome.progress.identities == whole.progress.identities
        units = [unit for unit in outcome.closures.units if not set(unit) <= half]
        assert set(outcome.built) == {cpv for unit in units for cpv in unit}


# Each kind of input

Change = Callable[[World], World]


def package_change(cpv: str, **values: object) -> Change:
    def change(world: World) -> World:
        package = world.plan.by_cpv[cpv]
        return world.with_package(replace(package, **values))  # type: ignore[arg-type]

    return change


def seed_change(cpv: str, identity: str = "new", new: str = "") -> Change:
    def change(world: World) -> World:
        seed = tuple(
            SeedPackage(new or cpv, identity, each.toolchain) if each.cpv == cpv else each
            for each in world.seed
        )
        return replace(world, seed=seed)

    return change


def popt_bumped(world: World) -> World:
    """The next version of popt, with an equal ebuild."""

    def of(package: PlannedPackage) -> PlannedPackage:
        needs = tuple("dev-libs/popt-2" if cpv == POPT else cpv for cpv in package.run_needs)
        cpv = "dev-libs/popt-2" if package.cpv == POPT else package.cpv
        return replace(package, cpv=cpv, run_needs=needs)

    return replace(world, packages=tuple(map(of, world.packages)))


ALL = {POPT, TOOL, APP, OTHER}
GCC = SEED[0].cpv
# input, change, what will be built with its cause, what may be built
TABLE: list[tuple[str, Change, dict[str, Cause], set[str]]] = [
    ("nothing", lambda world: world, {}, set()),
    ("ebuild", lambda w: w.with_id(ebuild(POPT), "1.0"), {POPT: EbuildChanged()}, {TOOL, APP}),
    ("ebuild of a leaf", lambda w: w.with_id(ebuild(APP), "1.0"), {APP: EbuildChanged()}, set()),
    (
        "eclass",
        lambda w: w.with_id(eclass("toolchain-names"), "0.1"),
        dict.fromkeys((POPT, APP), EclassChanged("toolchain-names")),
        {TOOL},
    ),
    ("another eclass", lambda w: w.with_id(eclass("unused"), "0.1"), {}, set()),
    ("files/", lambda w: w.with_id(files(TOOL), "1.0"), {TOOL: EbuildFilesChanged()}, {APP}),
    (
        "patch",
        lambda w: package_change(
            OTHER, config_files=planned(OTHER, config_files={"a": "1"}).config_files
        )(replace(w, packages=w.packages)),
        {OTHER: ConfigFileAdded("a")},
        set(),
    ),
    (
        "package.env",
        package_change(TOOL, settings={"CFLAGS": "-O2", "MAKEFLAGS": "x"}),
        {TOOL: Cause()},
        {APP},
    ),
    (
        "bashrc",
        package_change(APP, config_files=planned(APP, config_files={"bashrc": "1"}).config_files),
        {APP: ConfigFileAdded("bashrc")},
        set(),
    ),
    (
        "USE",
        package_change(TOOL, use=("static-libs",)),
        {TOOL: UseChanged(("static-libs",))},
        {APP},
    ),
    (
        "make.conf variable",
        lambda w: replace(
            w, packages=tuple(replace(p, settings={"CFLAGS": "-O3"}) for p in w.packages)
        ),
        dict.fromkeys(ALL, Cause()),
        set(),
    ),
    (
        "distfile digest",
        package_change(POPT, distfiles=planned(POPT, distfiles={"popt.tar.gz": "bb"}).distfiles),
        {POPT: DistfileChanged("popt.tar.gz")},
        {TOOL, APP},
    ),
    (
        "version of a dependency",
        popt_bumped,
        {
            "dev-libs/popt-2": VersionChanged(POPT, "dev-libs/popt-2"),
            TOOL: DependencyReplaced(POPT, "dev-libs/popt-2"),
            APP: DependencyReplaced(POPT, "dev-libs/popt-2"),
        },
        set(),
    ),
    (
        "sub-slot of a dependency",  # comes from its ebuild; := of the consumer is evaluated anew
        lambda w: package_change(TOOL, dependencies={"RDEPEND": "dev-libs/popt:0/2="})(
            w.with_id(ebuild(POPT), "1.0")
        ),
        {POPT: EbuildChanged(), TOOL: Cause()},
        {APP},
    ),
    (
        "one more dependency",
        package_change(OTHER, build_needs=(POPT,)),
        {OTHER: DependencyAdded(POPT)},
        set(),
    ),
    (
        "toolchain of the seed",
        seed_change(GCC),
        dict.fromkeys(ALL, ToolchainChanged((f"{GCC} has other content",))),
        set(),
    ),
    (
        "version of the seed's toolchain",
        seed_change(GCC, new="sys-devel/gcc-15.1.0"),
        dict.fromkeys(ALL, ToolchainChanged((f"{GCC} -> sys-devel/gcc-15.1.0",))),
        set(),
    ),
    (
        "package of the seed that is needed",  # by tool, also when tool runs for app
        seed_change(XZ),
        dict.fromkeys((TOOL, APP), SeedPackagesChanged((f"{XZ} has other content",))),
        set(),
    ),
    ("package of the seed that nothing needs", seed_change(SEED[2].cpv), {}, set()),
    (
        "seed without its packages",
        lambda w: replace(w, environment=replace(w.environment, seed="6" * 128)),
        {},
        set(),
    ),
    (
        "Portage",
        lambda w: replace(w, portage="3.0.84"),
        dict.fromkeys(ALL, PortageChanged("3.0.83", "3.0.84")),
        set(),
    ),
    (
        "recipe",
        lambda w: replace(w, environment=replace(w.environment, recipe="2")),
        dict.fromkeys(ALL, RecipeChanged("1", "2")),
        set(),
    ),
    (
        "one more package",
        lambda w: replace(w, packages=(*w.packages, planned("dev-libs/new-1", run=[POPT]))),
        {"dev-libs/new-1": NoEarlierBuild()},
        set(),
    ),
    ("one package less", lambda w: replace(w, packages=w.packages[:3]), {}, set()),
]


@pytest.mark.parametrize(
    ("change", "will", "may"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_kind_of_input_decides_what_will_and_may_be_built(
    change: Change, will: dict[str, Cause], may: set[str]
) -> None:
    store = Store()
    build(WORLD, store)
    decisions = predict(change(WORLD), store)
    assert {c for c, d in decisions.items() if isinstance(d, WillBuild)} == will.keys()
    assert {c for c, d in decisions.items() if isinstance(d, MayBuild)} == may
    for cpv, cause in will.items():
        decision = decisions[cpv]
        assert isinstance(decision, WillBuild)
        assert cause.code == "" or cause in decision.causes, decision.causes
    outcome = build(change(WORLD), store)
    assert will.keys() <= set(outcome.built) <= will.keys() | may


def test_package_that_may_be_built_names_what_may_change() -> None:
    store = Store()
    build(WORLD, store)
    decisions = predict(WORLD.with_id(ebuild(POPT), "1.0"), store)
    assert decisions[TOOL] == MayBuild(TOOL, (DependencyMayChange(POPT),))
    assert decisions[APP] == MayBuild(APP, (DependencyMayChange(TOOL),))


def test_earlier_buildroot_is_read_only_where_it_differs() -> None:
    store = Store()
    build(WORLD, store)
    reads = []
    for name, earlier in store.newest.items():

        def read(cpv: str = earlier.own.cpv, earlier: EarlierBuild = earlier) -> Mapping[str, str]:
            reads.append(cpv)
            return earlier.buildroot()

        store.newest[name] = replace(earlier, buildroot=read)
    predict(replace(WORLD, portage="3.0.84"), store)
    assert reads == []
    predict(popt_bumped(WORLD), store)
    assert sorted(reads) == sorted([TOOL, APP])


def test_new_version_with_the_same_output_rebuilds_only_what_may_ask_for_it() -> None:
    world, store = package_change(TOOL, asks_versions=False)(WORLD), Store()
    build(world, store)
    outcome = build(popt_bumped(world), store)
    assert outcome.built == ("dev-libs/popt-2", APP)
    assert outcome.decisions[TOOL] == MayBuild(TOOL, (DependencyMayChange("dev-libs/popt-2"),))
    replaced = DependencyReplaced(POPT, "dev-libs/popt-2")
    assert outcome.decisions[APP] == WillBuild(APP, (replaced,))
    assert cut_off(outcome) == {TOOL}


def test_whole_seed_counts_if_it_is_strict_or_has_no_package_database() -> None:
    for world in (
        replace(WORLD, environment=replace(WORLD.environment, strict=True)),
        World((planned(POPT), planned(TOOL, run=[POPT])), seed=()),
    ):
        store = Store()
        build(world, store)
        newer = replace(world, environment=replace(world.environment, seed="6" * 128))
        decisions = predict(newer, store)
        assert {cpv: d for cpv, d in decisions.items() if not isinstance(d, WillBuild)} == {}
        assert all(
            SeedChanged() in d.causes for d in decisions.values() if not isinstance(d, Reused)
        )


def test_dependency_that_came_out_different_is_the_cause_after_a_killed_build() -> None:
    store = Store()
    build(WORLD, store)
    changed = WORLD.with_id(ebuild(POPT), "1.0")
    plan = changed.plan
    own = own_inputs(plan, closure(plan), changed.objects, changed.environment)
    progress = Progress(closure(plan), own, store.entries.get)
    (popt,) = progress.ready()
    store.entries[popt.keys[POPT]] = StoredPackage("different")
    decision = predict(changed, store)[TOOL]
    assert decision == WillBuild(TOOL, (DependencyChanged(POPT),))


def test_package_that_the_store_has_lost_is_built_again() -> None:
    store = Store()
    key = build(WORLD, store).progress.keys[POPT]
    del store.entries[key]
    decisions = predict(WORLD, store)
    assert decisions[POPT] == WillBuild(POPT, (PackageMissing(),))
    assert isinstance(decisions[TOOL], MayBuild)
    assert build(WORLD, store).built == (POPT,)


# Cycles

CYCLE = World(
    (
        planned("cat/a-1", build=["cat/b-1"]),
        planned("cat/b-1", build=["cat/c-1"]),
        planned("cat/c-1", build=["cat/a-1"]),
        planned("cat/user-1", build=["cat/a-1"]),
    ),
    seed=(*SEED, SeedPackage("cat/b-0", "old b", toolchain=False)),
)


def test_cycle_is_built_twice_and_no_more_if_outputs_go_on_changing() -> None:
    closures = closure(CYCLE.plan)
    cycle = Cycle(closures, closures.units[0])
    steps = []
    while step := cycle.next():
        assert cycle.next() == step
        steps.append((step.cpv, step.round, dict(step.members)))
        cycle.built(step, f"{step.cpv} {len(steps)}")
    assert steps == [
        ("cat/a-1", 1, {}),
        ("cat/b-1", 1, {}),
        ("cat/c-1", 1, {"cat/a-1": "cat/a-1 1"}),
        ("cat/a-1", 2, {"cat/b-1": "cat/b-1 2"}),
        ("cat/b-1", 2, {"cat/c-1": "cat/c-1 3"}),
        ("cat/c-1", 2, {"cat/a-1": "cat/a-1 4"}),
    ]
    assert cycle.identities == {
        "cat/a-1": "cat/a-1 4",
        "cat/b-1": "cat/b-1 5",
        "cat/c-1": "cat/c-1 6",
    }


def test_package_of_a_cycle_is_not_built_again_for_what_it_has_seen() -> None:
    closures = closure(CYCLE.plan)
    cycle = Cycle(closures, closures.units[0])
    steps = []
    while step := cycle.next():
        steps.append((step.cpv, step.round))
        cycle.built(step, step.cpv)
    a, b, c = closures.units[0]
    assert steps == [(a, 1), (b, 1), (c, 1), (a, 2), (b, 2)]


def test_change_of_one_package_builds_its_cycle_as_one() -> None:
    store = Store()
    build(CYCLE, store)
    decisions = predict(CYCLE.with_id(ebuild("cat/b-1"), "0.1"), store)
    assert decisions["cat/b-1"] == WillBuild("cat/b-1", (EbuildChanged(),))
    together = BuiltTogether(("cat/b-1", "cat/c-1"))
    assert decisions["cat/a-1"] == WillBuild("cat/a-1", (together,))
    assert isinstance(decisions["cat/user-1"], MayBuild)
    built = build(CYCLE.with_id(ebuild("cat/b-1"), "0.1"), store).built
    assert set(built) == {"cat/a-1", "cat/b-1", "cat/c-1"}


def test_package_that_left_its_cycle_is_built_again() -> None:
    cycle, store = replace(CYCLE, seed=SEED), Store()
    build(cycle, store)
    world = package_change("cat/c-1", build_needs=())(cycle)
    decisions = predict(world, store)
    assert decisions["cat/c-1"] == WillBuild("cat/c-1", (DependencyRemoved("cat/a-1"),))
    assert decisions["cat/b-1"] == WillBuild("cat/b-1", (DependencyMayChange("cat/c-1"),))
    outcome = build(world, store)
    assert set(outcome.built) == {"cat/a-1", "cat/b-1", "cat/c-1"}
    pair = World((planned("cat/a-1", build=["cat/b-1"]), planned("cat/b-1", build=["cat/a-1"])))
    store = Store()
    build(pair, store)
    apart = package_change("cat/b-1", build_needs=())(pair)
    del store.entries[build(apart, store).progress.keys["cat/a-1"]]
    store.newest["cat/a", "0"] = replace(store.newest["cat/a", "0"], key="that of a cycle")
    assert predict(apart, store)["cat/a-1"] == WillBuild("cat/a-1", (CycleChanged(),))


def test_cycle_of_which_the_store_has_lost_one_package_is_built_again() -> None:
    store = Store()
    keys = build(CYCLE, store).progress.keys
    del store.entries[keys["cat/b-1"]]
    decisions = predict(CYCLE, store)
    assert decisions["cat/b-1"] == WillBuild("cat/b-1", (PackageMissing(),))
    together = BuiltTogether(("cat/b-1", "cat/c-1"))
    assert decisions["cat/a-1"] == WillBuild("cat/a-1", (together,))


def test_older_build_in_the_seed_counts_for_the_cycle_that_starts_with_it() -> None:
    store = Store()
    build(CYCLE, store)
    decisions = predict(seed_change("cat/b-0")(CYCLE), store)
    assert isinstance(decisions["cat/a-1"], WillBuild)
    cause = SeedPackagesChanged(("cat/b-0 has other content",))
    assert cause in decisions["cat/a-1"].causes
    assert isinstance(decisions["cat/user-1"], MayBuild)
