"""Each task of a chroot counts in the report, by the graph: a failed check is not called stale."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks import graph, journal
from tasks.causes import MayChange, NotRemembered, Reason
from tasks.config.tables import Config
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.report.gather import gather
from tasks.report.json import plain
from tasks.report.model import SiteReport
from tasks.report.text import screen
from tasks.site import Site
from tests.kit.graph_picture import TABLES

KINDS = (
    *("chroot", "etc", "mount", "check", "plan"),
    *("binpkgs", "candidate", "gate", "publish", "client"),
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    layout = Layout(tmp_path, tmp_path / "state", run="20260310T000000Z-1")
    return Site(layout, Config.model_validate(TABLES))


def report(site: Site, failed: str, after: Sequence[str] = ()) -> SiteReport:
    """The report where one task has failed, and others wait for it."""
    journal.start(site.layout, failed)
    journal.end(site.layout, failed, "failed", 1.0, BinmillError("lock-missing", path="x"))
    causes = {failed: Reason(failed, NotRemembered(), NotRemembered(), (failed,))}
    for task in after:
        causes[task] = Reason(task, MayChange(failed), NotRemembered(), (task, failed))
    steps = graph.steps(site)
    chroots = {
        name: [step.task for step in steps if step.chroot == name] for name in site.config.chroots
    }
    return gather(site.layout, [step.key for step in steps], chroots, causes)


@pytest.mark.parametrize("kind", [*KINDS, "members"])
def test_report_names_the_failed_task_of_a_chroot(site: Site, kind: str) -> None:
    status = report(site, f"{kind}:base", ["binpkgs:base"] if kind == "check" else [])
    assert (status.chroots["base"].state, status.chroots["base"].task) == ("failed", f"{kind}:base")
    assert status.chroots["stack"].state == "fresh"
    assert f"chroot    base   failed at {kind}:base" in list(screen(status, time.time()))
    fields = plain(status)
    assert fields["chroots"]["base"]["reason"]["cause"] == {"code": "cause-not-remembered"}
    assert fields["last_run"]["tasks"] == {f"{kind}:base": "failed"}


def test_every_task_of_a_chroot_is_in_its_report(site: Site) -> None:
    for name in ("base", "stack"):
        kinds = [s.key.kind.name for s in graph.steps(site) if s.chroot == name]
        assert kinds == [*KINDS, "members"]
