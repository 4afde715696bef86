"""The work of a pool of builds, without a buildroot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.builder.failure import Failure, Kind
from tasks.builder.package_builds import BuildSettings, PackageBuilds, SetBuild
from tasks.buildroot import buildroot
from tasks.errors import BinmillError, HostLacks, NotTrusted
from tasks.layout import Layout
from tasks.planner import keys
from tasks.planner.closure import closure
from tasks.system.sandbox import Limits, Sandbox
from tests.kit.plan_factory import PACKAGE, package, plan

CPV = PACKAGE.cpv


@pytest.fixture
def work(tmp_path: Path) -> PackageBuilds:
    """The builds of a plan with one package, which fetches nothing."""
    planned = plan(package(CPV, distfiles=(), eclasses=()))
    closures = closure(planned)
    ids = {("gentoo", "dev-libs/popt/popt-1.19.ebuild"): "a" * 40}
    objects = keys.Objects(ids, {"gentoo": "b" * 40})
    own = keys.own_inputs(planned, closures, objects, keys.Environment("1", "amd64", ""))
    work = PackageBuilds(
        SetBuild(
            chroot="base",
            plan=planned,
            closures=closures,
            own=own,
            layout=Layout(tmp_path, tmp_path / "state"),
            highest={},
            sandbox=lambda space: Sandbox("base", (), space),
            fetch=lambda _package, _log: 0,
            distfiles=(),
            binds=(),
            logs=tmp_path / "logs",
            settings=lambda _cpv: BuildSettings(Limits(), "-j1"),
        )
    )
    work.decide(CPV)
    return work


@pytest.mark.parametrize(
    "error",
    [
        NotTrusted("layer-links-in-a-circle", path="/usr/x"),
        NotTrusted("package-claims", package=CPV, claimed="PF=x"),
        BinmillError("file-not-plain", path="Packages"),
        BinmillError("nothing-installed"),
    ],
    ids=lambda error: error.code,
)
def test_package_whose_results_are_refused_fails_alone(
    work: PackageBuilds, monkeypatch: pytest.MonkeyPatch, error: BinmillError
) -> None:
    def build(_order: object) -> None:
        raise error

    monkeypatch.setattr(buildroot, "build", build)
    outcome = work.build(CPV)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.lines) == (Kind.INSTALL, (error.message,))


def test_error_of_the_host_ends_the_run(
    work: PackageBuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_order: object) -> None:
        raise HostLacks("disk-full", path="/")

    monkeypatch.setattr(buildroot, "build", build)
    with pytest.raises(HostLacks):
        work.build(CPV)
