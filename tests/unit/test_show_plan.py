"""doit show NAME --plan."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import pytest

from tasks import records
from tasks.commands.show import Show
from tasks.config.tables import Config
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.planner import plan as plans
from tasks.planner.plan import Plan
from tasks.records import PLAN, PlanRecord
from tasks.site import Site
from tests.kit.configs import ONE_CHROOT
from tests.kit.plan_factory import package, plan
from tests.kit.refused import refused

OLD = plan(package("a/b-1", use=("x", "y")), package("a/c-1"))


@pytest.fixture
def site(layout: Layout) -> Site:
    layout.records.mkdir(parents=True)
    return Site(layout, Config.model_validate(ONE_CHROOT))


def resolve(site: Site, newest: Plan) -> str:
    """Record a plan as plan:NAME does; returns the name of its chroot."""
    [name] = site.config.chroots
    digest = plans.digest(newest)
    path = site.layout.plan(name, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    plans.write(newest, path)
    content = PlanRecord(digest, len(newest.packages), str(path.relative_to(site.layout.state)))
    records.save(site.layout, PLAN(name), content)
    return name


def show(site: Site, name: str, **options: Any) -> None:
    given = {"files": [], "plan": True, "changes": False, "json": False, **options}
    Show.run(Show.__new__(Show), site, argparse.Namespace(name=name, **given))


def test_plan_is_printed_for_people_and_programs(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    name = resolve(site, OLD)
    show(site, name)
    assert capsys.readouterr().out == 'a/b-1::gentoo  USE="x y"\na/c-1::gentoo  USE="amd64 nls"\n'
    show(site, name, json=True)
    assert plans.parse(capsys.readouterr().out) == OLD


def test_changes_are_those_since_the_last_complete_build(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    name = resolve(site, OLD)
    with refused(BinmillError, "show-no-built-plan", chroot=name):
        show(site, name, changes=True)
    built = site.layout.built_plan(name)
    built.parent.mkdir(parents=True)
    plans.write(OLD, built)
    show(site, name, changes=True)
    assert capsys.readouterr().out == f"the plan of {name} is that of its last complete build\n"
    resolve(site, replace(OLD, packages=(package("a/b-1", use=("y",)), package("a/c-1"))))
    show(site, name, changes=True)
    assert capsys.readouterr().out == "a/b-1: USE -x\n"
    show(site, name, changes=True, json=True)
    [change] = json.loads(capsys.readouterr().out)
    assert (change["package"], change["removed"]) == ("a/b-1", ["x"])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"files": ["make.conf"]}, "show-plan-and-files"),
        ({"plan": False, "json": True}, "show-without-plan"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    site: Site, options: dict[str, bool], code: str
) -> None:
    with refused(BinmillError, code):
        show(site, resolve(site, OLD), **options)
