"""Forecasts by an outdated plan: real repositories of the tree, before and after a new lock."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks import lock as lock_file
from tasks import records
from tasks.causes import Cause, PinMoved
from tasks.config.tables import Config
from tasks.errors import BinmillError, Stale
from tasks.flow import per_package
from tasks.flow.forecast import forecast
from tasks.layout import Layout
from tasks.lock import Lock, SeedPin, TreePin
from tasks.planner import keys
from tasks.planner import plan as plans
from tasks.planner.closure import closure
from tasks.planner.forecast import Forecast
from tasks.records import (
    CHROOT,
    ETC,
    PLAN,
    TREE,
    ChrootRecord,
    EtcRecord,
    Key,
    PlanRecord,
    TreeRecord,
)
from tasks.site import Chroot, Site
from tasks.store.store import Store
from tests.kit.graph_picture import TABLES
from tests.kit.keys import input_key
from tests.kit.overlays import commit
from tests.kit.plans import StoredPackage, World, planned
from tests.kit.refused import refused

POPT, TOOL, APP, GAME = "dev-libs/popt-1.19", "dev-build/tool-2", "app-misc/app-1", "games/game-1"
IDENTITY = "1" * 64
WORLD = World(
    (
        planned(POPT, eclasses=["x"]),
        planned(TOOL),
        planned(APP, build=[TOOL], eclasses=["x"]),
        planned(GAME, eclasses=["y"]),
    )
)
FILES = {
    **{
        f"{cp}/{pf}.ebuild": "EAPI=8\n"
        for cp, pf in (
            ("dev-libs/popt", "popt-1.19"),
            ("dev-build/tool", "tool-2"),
            ("app-misc/app", "app-1"),
            ("games/game", "game-1"),
        )
    },
    "eclass/x.eclass": "# x\n",
    "eclass/y.eclass": "# y\n",
}
MOVED = PinMoved("tree", "20260801", "20260802")


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
    return work


@pytest.fixture
def chroot(tmp_path: Path, upstream: Path) -> Chroot:
    """A chroot with a plan by the first commit; its packages were built, but are not stored."""
    layout = Layout(tmp_path / "site", tmp_path / "site/state")
    head = commit(upstream, FILES)
    chroot = Chroot(Site(layout, Config.model_validate(TABLES)), "base")
    plan = WORLD.plan
    path = layout.plan("base", plans.digest(plan))
    plans.write(plan, path)
    kept: list[tuple[Key[Any], Any]] = [
        (TREE(), TreeRecord("20260801", head, 0)),
        (CHROOT("base"), ChrootRecord(("layers/base/x", "seeds/x"))),
        (ETC("base"), EtcRecord("etc/base/x", ())),
        (PLAN("base"), PlanRecord(path.stem, 4, f"plans/base/{path.name}", {"gentoo": head})),
    ]
    for key, record in kept:
        records.save(layout, key, record)
    lock(chroot, upstream, head)
    inputs = records.reading(layout, [key for key, _ in kept])
    own = per_package.own_inputs(chroot, inputs, plan, closure(plan))
    for package in plan.packages:
        cpv = package.cpv
        buildroot = dict.fromkeys(closure(plan).buildroot(cpv), IDENTITY)
        data = {
            "own": keys.render(own[cpv]),
            "key": input_key(own[cpv], buildroot),
            "identity": IDENTITY,
            "buildroot": buildroot,
        }
        Store(layout).remember_inputs("base", cpv, package.slot, data)
    return chroot


@pytest.fixture
def stored(chroot: Chroot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages that were built are in the store."""
    store = Store(chroot.layout)
    last = [store.last_inputs("base", cpv, "0") for cpv in (POPT, TOOL, APP, GAME)]
    entries = {each[1]["key"]: StoredPackage(IDENTITY) for each in last if each}
    monkeypatch.setattr(Store, "lookup", lambda _store, key: entries.get(key))


def lock(chroot: Chroot, upstream: Path, head: str, *, fetched: bool = True) -> None:
    """Pin a commit of the tree, which is here if it was fetched."""
    tree = chroot.layout.tree
    if fetched:
        subprocess.run(["git", "clone", "-q", "--mirror", upstream, tree], check=False)
        subprocess.run(["git", "-C", tree, "fetch", "-q"], check=True)
    seeds = {"openrc": SeedPin(arch="amd64", flavour="openrc", path="x/y", sha512="e" * 128)}
    lock_file.write(chroot.layout, Lock(tree=TreePin(tag="20260802", commit=head), seeds=seeds))


def words(result: Forecast) -> dict[str, tuple[str, str]]:
    """The decision about each package, and its causes."""
    return {each.cpv: (each.decision, "; ".join(map(str, each.causes))) for each in result.packages}


STALE: Mapping[str, Cause] = {"tree": MOVED, "plan:base": MOVED}


@pytest.mark.usefixtures("stored")
def test_files_of_the_new_lock_are_compared_with_the_last_plan(
    chroot: Chroot, upstream: Path
) -> None:
    (upstream / "eclass/y.eclass").unlink()
    new = {"eclass/x.eclass": "# other\n", "dev-build/tool/tool-3.ebuild": "EAPI=8\n"}
    lock(chroot, upstream, commit(upstream, new))
    result = forecast(chroot, STALE)
    assert [str(each) for each in result.outdated] == ["tree 20260801 -> 20260802"]
    eclass = "eclass x changed, inherited by 2 packages"
    assert words(result) == {
        POPT: ("will-build", eclass),
        TOOL: ("may-build", "gentoo has dev-build/tool-3 now"),
        APP: ("will-build", eclass),
        GAME: ("may-build", "eclass y is not there any more"),
    }


@pytest.mark.usefixtures("stored")
def test_commit_that_is_not_here_is_a_doubt_about_all_of_its_packages(
    chroot: Chroot, upstream: Path
) -> None:
    lock(chroot, upstream, commit(upstream, {"eclass/x.eclass": "# other\n"}), fetched=False)
    doubt = ("may-build", "tree 20260801 -> 20260802")
    may_change = ("may-build", f"{doubt[1]}; {TOOL} may change")
    expected = {POPT: doubt, TOOL: doubt, APP: may_change, GAME: doubt}
    assert words(forecast(chroot, STALE)) == expected


@pytest.mark.usefixtures("stored")
def test_equal_files_of_a_new_commit_change_nothing(chroot: Chroot, upstream: Path) -> None:
    lock(chroot, upstream, commit(upstream, {"README": "x"}))
    result = forecast(chroot, STALE)
    assert result.outdated
    same = ("reused", "nothing changed since its last build")
    assert words(result) == dict.fromkeys((POPT, TOOL, APP, GAME), same)


def test_current_plan_of_packages_that_the_store_lacks(chroot: Chroot) -> None:
    result = forecast(chroot, {})
    assert not result.outdated
    lacking = ("will-build", "the store does not have it any more")
    expected = dict.fromkeys((POPT, TOOL, GAME), lacking)
    assert words(result) == {**expected, APP: ("will-build", f"{TOOL} may change")}


def test_plan_and_repositories_are_needed(chroot: Chroot) -> None:
    head = chroot.layout.tree / "HEAD"
    head.rename(head.with_name("elsewhere"))
    with refused(BinmillError, "repository-damaged"):
        forecast(chroot, {})
    assert not head.exists()  # it was not created
    chroot.layout.record("plan:base").unlink()
    with refused(Stale, "forecast-no-plan"):
        forecast(chroot, {})


def test_other_users_are_told_who_can_read_it(
    chroot: Chroot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with refused(BinmillError, "forecast-private", path=chroot.layout.plans):
        forecast(chroot, {})
