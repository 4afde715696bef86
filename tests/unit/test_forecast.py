"""Forecasts of a build: data for programs, words for people, and what an outdated plan can tell."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from tasks.causes import (
    Cause,
    FilesChanged,
    InputsDiffer,
    ModifiedByHand,
    PinMoved,
    RecordsChanged,
    SettingChange,
    SettingsChanged,
)
from tasks.planner.closure import closure
from tasks.planner.decide import MayBuild, Reused, decide
from tasks.planner.forecast import Forecast, affected, fill_gaps, forecast, newer_versions
from tasks.planner.history import History
from tasks.planner.input_changes import (
    BuiltTogether,
    EbuildGone,
    EclassGone,
    NewerVersion,
)
from tasks.planner.keys import Objects, own_inputs
from tasks.snapshot.changes import version_key
from tests.kit.plans import (
    Store,
    World,
    build,
    ebuild,
    eclass,
    planned,
    predict,
    random_change,
    random_world,
)

POPT, TOOL, APP, OTHER = "dev-libs/popt-1", "dev-build/tool-1", "app-misc/app-1", "app-misc/other-1"
WORLD = World(
    (
        planned(POPT, eclasses=["toolchain-names"], use=["nls"]),
        planned(TOOL, run=[POPT]),
        planned(APP, build=[TOOL], eclasses=["toolchain-names", "xdg"]),
        planned(OTHER),
    )
)
PAST = History().with_builds([(POPT, 30.0, 0), (APP, 90.0, 0)])
DOUBT = (ModifiedByHand("base"),)


def forecast_of(world: World, store: Store) -> Forecast:
    def last_key(package: object) -> str | None:
        build = store.earlier(package)  # type: ignore[arg-type]
        return build.key if build else None

    return forecast("base", world.plan, predict(world, store), last_key, PAST)


@pytest.fixture
def store() -> Store:
    store = Store()
    build(WORLD, store)
    return store


def test_packages_have_a_decision_causes_and_times(store: Store) -> None:
    before = forecast_of(WORLD, store)
    assert {each.decision for each in before.packages} == {"reused"}
    changed = WORLD.with_id(eclass("toolchain-names"), "1.0")
    after = forecast_of(changed, store)
    assert [(each.cpv, each.decision, each.seconds) for each in after.packages] == [
        (POPT, "will-build", 30.0),
        (TOOL, "may-build", 8.0),
        (APP, "will-build", 90.0),
        (OTHER, "reused", 0.0),
    ]
    popt = after.packages[0]
    assert str(popt) == (
        f"{POPT} (30.0 s): eclass toolchain-names changed, inherited by 2 packages"
    )
    assert [each.measured for each in after.packages] == [True, False, True, False]


def test_forecast_is_plain_data(store: Store) -> None:
    plain = forecast_of(WORLD.with_id(ebuild(POPT), "1.0"), store).plain()
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["plan"], plain["seconds"]) == ("current", {"will-build": 30.0, "may-build": 98.0})
    assert plain["packages"][0] == {
        "package": POPT,
        "decision": "will-build",
        "causes": [{"code": "cause-ebuild", "sentence": "its ebuild changed"}],
        "seconds": 30.0,
        "measured": True,
    }


def test_lines_are_for_people(store: Store) -> None:
    result = forecast_of(WORLD.with_id(ebuild(POPT), "1.0"), store)
    lines = "\n".join(result.lines(reused=True)).splitlines()
    assert lines == [
        "1 package will be built, 2 may be built, 1 will not be built; "
        "expected build time 30.0 s to 2 min 8 s",
        "will be built:",
        f"  {POPT} (30.0 s): its ebuild changed",
        "may be built:",
        f"  {TOOL} (perhaps 8.0 s): {POPT} may change",
        f"  {APP} (1 min 30 s): {TOOL} may change",
        "will not be built:",
        f"  {OTHER}: nothing changed since its last build",
    ]
    assert "will not be built:" not in "\n".join(result.lines(reused=False)).splitlines()


def test_nothing_to_build_is_one_line(store: Store) -> None:
    assert [*forecast_of(WORLD, store).lines(reused=False)] == ["none of 4 packages will be built"]


def test_outdated_plan_says_so(store: Store) -> None:
    causes = (PinMoved("tree", "20260801", "20260802"), ModifiedByHand("base"))
    result = replace(forecast_of(WORLD, store), outdated=causes)
    first = next(result.lines(reused=True))
    assert first.startswith("the plan is outdated: tree 20260801 -> 20260802; base was modified")
    assert [each["code"] for each in result.plain()["outdated"]] == [
        "cause-pin-moved",
        "cause-modified",
    ]


def test_package_of_another_chroot_was_built_before(store: Store) -> None:
    result = forecast_of(WORLD, Store(store.entries))
    assert {cause.code for each in result.packages for cause in each.causes} == {
        "cause-built-before"
    }


@pytest.mark.parametrize("seed", range(30))
def test_doubt_about_a_package_reaches_what_needs_it_and_nothing_else(seed: int) -> None:
    random = Random(seed)  # noqa: S311
    store, world = Store(), random_world(random, 12)
    build(world, store, random)
    world = random_change(random, world)
    certain = predict(world, store)
    doubtful = {random.choice(world.packages).cpv: DOUBT}
    plan, closures = world.plan, closure(world.plan)
    own = own_inputs(plan, closures, world.objects, world.environment)
    decisions = decide(plan, closures, own, store.entries.get, store.earlier, unsure=doubtful)
    reached = set(doubtful)
    for unit in closures.units:
        if reached & {*unit, *(each for cpv in unit for each in closures.buildroot(cpv))}:
            reached |= set(unit)
        for cpv in unit:
            if isinstance(certain[cpv], Reused):
                assert isinstance(decisions[cpv], MayBuild if cpv in reached else Reused)
            else:
                assert type(decisions[cpv]) is type(certain[cpv])


def test_doubt_about_a_package_of_a_cycle_is_about_all_of_it() -> None:
    one, two = "a/one-1", "a/two-1"
    world = World((planned(one, build=[two]), planned(two, build=[one])), cycles=((one, two),))
    store = Store()
    build(world, store)
    closures = closure(world.plan)
    own = own_inputs(world.plan, closures, world.objects, world.environment)
    decisions = decide(
        world.plan, closures, own, store.entries.get, store.earlier, unsure={one: DOUBT}
    )
    assert decisions == {one: MayBuild(one, DOUBT), two: MayBuild(two, (BuiltTogether((one,)),))}


EVERY = {POPT, TOOL, APP, OTHER}


def setting(key: str, *added: str, removed: tuple[str, ...] = ()) -> SettingsChanged:
    return SettingsChanged((SettingChange(key, added=added, removed=removed),))


@pytest.mark.parametrize(
    ("cause", "packages"),
    [
        (setting("package.use dev-libs/popt", "static-libs"), {POPT}),
        (setting("package.use dev-libs/popt", "nls"), set()),  # it is on already
        (setting("package.use dev-libs/popt", "-nls"), {POPT}),
        (setting("package.use dev-libs/popt", "-static-libs"), set()),
        (setting("package.use dev-libs/popt", removed=("nls",)), {POPT}),
        (setting("package.use >=dev-libs/popt-0.9-r1:0::gentoo", "x"), {POPT}),
        (setting("package.use =app-misc/app-1*", "x"), {APP}),
        (setting("package.use app-misc/*", "x"), {APP, OTHER}),
        (setting("package.use */*", "X: y"), EVERY),
        (setting("package.use dev-libs/other", "x"), set()),
        (setting("package.accept_keywords app-misc/other", "~amd64"), {OTHER}),
        (setting("package.mask", ">app-misc/app-2"), {APP}),
        (setting("package.mask", removed=("dev-libs/none",)), set()),
        (setting("use", "nls"), EVERY - {POPT}),
        (setting("use", "-nls"), {POPT}),
        (setting("use"), EVERY),  # in another order
        (setting("packages", "app-misc/new"), set()),
        (setting("mirrors gentoo", "http://mirror.example"), set()),
        (SettingsChanged((SettingChange("env CFLAGS", "-O2", "-O3"),)), EVERY),
        (SettingsChanged(), EVERY),
        (FilesChanged(["files below portage"]), EVERY),
        (ModifiedByHand("base"), EVERY),
        (RecordsChanged(["tree", "check:base"]), set()),
        (RecordsChanged(["tree", "etc:base"]), EVERY),
        (PinMoved("seed:s", "20260801T170000Z", "20260802T170000Z"), EVERY),
        (PinMoved("tree", "20260801", "20260802"), set()),  # its files are compared
        (PinMoved("overlay:more", "c" * 40, "d" * 40), EVERY),  # not fetched yet
        (InputsDiffer(), set()),
    ],
)
def test_change_is_a_doubt_about_the_packages_that_it_may_concern(
    cause: Cause, packages: set[str]
) -> None:
    assert set(affected(WORLD.plan, [cause], {"overlay:more": "gentoo"})) == packages


def test_doubt_has_only_the_settings_that_concern_the_package() -> None:
    changes = (SettingChange("package.use dev-libs/popt", added=("x",)), SettingChange("profile"))
    doubts = affected(WORLD.plan, [SettingsChanged(changes)], {})
    assert doubts[POPT] == (SettingsChanged(changes),)
    assert doubts[APP] == (SettingsChanged(changes[1:]),)


def test_missing_files_are_causes_of_their_packages() -> None:
    before = WORLD.objects
    gone = {("gentoo", ebuild(POPT)), ("gentoo", eclass("xdg"))}
    after = Objects({key: each for key, each in before.ids.items() if key not in gone}, {})
    objects, causes = fill_gaps(WORLD.plan, before, after)
    assert causes == {POPT: (EbuildGone("gentoo"),), APP: (EclassGone("xdg"),)}
    assert objects.ids == before.ids
    closures = closure(WORLD.plan)
    own = own_inputs(WORLD.plan, closures, objects, WORLD.environment)
    assert own == own_inputs(WORLD.plan, closures, before, WORLD.environment)


def test_newer_versions_count_and_older_ones_do_not() -> None:
    added = {
        "gentoo": {"dev-libs/popt": ["0.9", "1-r1", "1.0.2"], "app-misc/app": ["0.1"]},
        "more": {"app-misc/other": ["2"], "app-misc/new": ["1"]},
    }
    assert newer_versions(WORLD.plan, added, version_key) == {
        POPT: (NewerVersion("dev-libs/popt-1.0.2", "gentoo"),),
        OTHER: (NewerVersion("app-misc/other-2", "more"),),
    }
