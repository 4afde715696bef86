"""The work of a pool of builds, without a buildroot."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tasks.builder.failure import Failure, Kind
from tasks.builder.package_builds import BuildSettings, PackageBuilds, SetBuild
from tasks.buildroot import buildroot
from tasks.buildroot.buildroot import PackageBuild
from tasks.errors import BinmillError, HostLacks, NotTrusted
from tasks.layout import Layout
from tasks.planner import keys
from tasks.planner.closure import closure
from tasks.planner.plan import Distfile
from tasks.portage.etc_portage import DISTDIR
from tasks.store.store import Store
from tasks.system.sandbox import Limits, Sandbox
from tests.kit.plan_factory import PACKAGE, package, plan

CPV = PACKAGE.cpv


CONTENT = b"the bytes of upstream"
FILE = Distfile("popt.tar", len(CONTENT), {"SHA512": hashlib.sha512(CONTENT).hexdigest()})


@pytest.fixture
def work(tmp_path: Path) -> PackageBuilds:
    """The builds of a plan with one package, which has one distfile."""
    (tmp_path / "distfiles").mkdir()
    (tmp_path / "distfiles" / FILE.name).write_bytes(CONTENT)
    planned = plan(package(CPV, distfiles=(FILE,), eclasses=()))
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
            distfiles=(tmp_path / "distfiles",),
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
        NotTrusted("package-claims", package=CPV, key="PF", planned="popt-1", claimed="x"),
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


def test_build_sees_only_its_own_distfiles_as_they_were_verified(
    work: PackageBuilds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Meanwhile the fetch of another package writes to the shared folder."""
    shared = tmp_path / "distfiles"
    (shared / "of-another.tar").write_bytes(CONTENT)
    seen: list[dict[str, bytes]] = []

    def build(order: PackageBuild) -> None:
        with (shared / FILE.name).open("r+b") as stream:  # in its place, whatever else links to it
            stream.write(b"evil")
        [bind] = [bind for bind in buildroot.plan(order).binds if bind.target == DISTDIR]
        assert not bind.writable
        seen.append({path.name: path.read_bytes() for path in Path(bind.source).iterdir()})
        raise BinmillError("nothing-installed")

    monkeypatch.setattr(buildroot, "build", build)
    work.build(CPV)
    assert seen == [{FILE.name: CONTENT}]


def test_distfile_that_another_fetch_changes_before_the_build_is_absent(
    work: PackageBuilds, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def number(*_: object) -> int:
        (tmp_path / "distfiles" / FILE.name).write_bytes(b"X" * len(CONTENT))
        return 1

    monkeypatch.setattr(Store, "next_build_id", number)
    monkeypatch.setattr(buildroot, "build", pytest.fail)
    outcome = work.build(CPV)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.phase) == (Kind.FETCH, "fetch")
    assert FILE.name in outcome.lines[0]


def test_package_without_a_build_number_fails_alone(
    work: PackageBuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buildroot, "build", pytest.fail)
    monkeypatch.setattr("tasks.store.store.MOST_BUILDS", 1)
    outcome = work.build(CPV)
    assert isinstance(outcome, Failure)
    assert outcome.lines == (f"{CPV} has used up its build numbers",)


def test_error_of_the_host_ends_the_run(
    work: PackageBuilds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_order: object) -> None:
        raise HostLacks("disk-full", path="/")

    monkeypatch.setattr(buildroot, "build", build)
    with pytest.raises(HostLacks):
        work.build(CPV)
