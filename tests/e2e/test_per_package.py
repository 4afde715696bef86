"""Sets built package by package, by the real Portage: killed, failed, mended, changed, and compared
with those that one emerge of the whole set builds.

The tests share one site. Its base is built in four runs, of which the first two are stopped and the
third has a patch that does not apply. A stack on it has the cases of tests/kit/build_cases.py, of
which some fail, are mended, and change on the next day.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks import records
from tasks.portage import gpkg
from tasks.records import BINPKGS, BinpkgsRecord
from tasks.store import identity
from tasks.store.identity import Contents
from tasks.system.files import write_atomic
from tests.kit import build_cases as cases
from tests.kit.build_runs import Run, last_run, run
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite, tasks_run
from tests.kit.processes import leftovers_of_kill

BASE = ["app-misc/nosy", "app-text/dos2unix"]  # and @system: bzip2, pkgconf, tree, zlib
JAVA = ["app-arch/pbzip2", "dev-java/jattach"]
SYSTEM = {"app-arch/bzip2", "app-text/tree", "dev-util/pkgconf", "sys-libs/zlib"}
TREE = "app-text/tree"
PATCH = """\
--- a/tree.c
+++ b/tree.c
@@ -1,3 +1,3 @@
 not
-in this
+any more in this
 file
"""
# Packages that the two drivers build differently, and why.
DIFFERENT: dict[str, str] = {}


def stopped_run(site: LabSite, chroot: str, how: signal.Signals) -> tuple[Run, int, list[str]]:
    """A run that gets a signal while it builds, with something built; and what it leaves behind."""
    deadline = time.monotonic() + 300
    latest = site.layout.logs / "latest"
    before = latest.readlink()
    with site.start(f"binpkgs:{chroot}") as process:
        while latest.readlink() == before or not last_run(site, chroot).built:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(how)
        process.communicate(timeout=60)
    return last_run(site, chroot), process.returncode, leftovers_of_kill(site.layout)


def control_groups() -> set[Path]:
    """Those of runs that have ended, and that the next build should have deleted."""
    groups = Path("/sys/fs/cgroup").glob("**/binmill-*-*")
    return {each for each in groups if not Path("/proc", each.name.split("-")[1]).exists()}


def record(site: LabSite, chroot: str) -> BinpkgsRecord:
    return records.load(site.layout, BINPKGS(chroot))


def contents(site: LabSite, chroot: str) -> dict[str, Contents]:
    packages = record(site, chroot)
    folder = site.layout.binpkgs(chroot) / packages.set
    return {each.cpv: identity.read(folder / each.path) for each in packages.packages}


def installed(site: LabSite, chroot: str, name: str) -> dict[str, bytes]:
    """The content of the file of that name, by the CPVs of the packages that have one."""
    packages = record(site, chroot)
    folder = site.layout.binpkgs(chroot) / packages.set
    return {
        each.cpv: stream.read()
        for each in packages.packages
        for path, _, stream in gpkg.image_entries(folder / each.path)
        if stream is not None and path.rpartition("/")[2] == name
    }


def identities(site: LabSite, chroot: str) -> dict[str, tuple[str, str]]:
    """USE and identity of each package of a set, by CPV."""
    return {
        cpv: (each.metadata["USE"], each.identity) for cpv, each in contents(site, chroot).items()
    }


@dataclass(frozen=True)
class BaseBuild:
    """The four runs that build the base.

    `left` are processes and mounts after the two that were stopped, `groups` control groups at the
    end, `code` is the exit code after SIGTERM.
    """

    site: LabSite
    killed: Run
    terminated: Run
    code: int
    left: list[str]
    groups: set[Path]
    failed: Run
    record_of_failed: bool
    mended: Run


@pytest.fixture(scope="module")
def base_build(lab_site: LabSite) -> BaseBuild:
    patches = lab_site.layout.site / "portage" / "patches" / TREE
    write_atomic(patches / "x.patch", PATCH)
    lab_site.change(
        build={"driver": "per-package", "packages": 2},
        **{
            "chroots.base": {"packages": BASE, "package_use": {}, "portage_dir": "portage"},
            "chroots.java": {"packages": JAVA, "package_use": {}},
        },
    )
    lab_site.doit("plan:base")
    others = control_groups()
    killed, _, left = stopped_run(lab_site, "base", signal.SIGKILL)
    terminated, code, more = stopped_run(lab_site, "base", signal.SIGTERM)
    failed = run(lab_site, "base", code=1)
    has_record = lab_site.layout.record("binpkgs:base").exists()
    (patches / "x.patch").unlink()
    mended = run(lab_site, "base")
    return BaseBuild(
        site=lab_site,
        killed=killed,
        terminated=terminated,
        code=code,
        left=[*left, *more],
        groups=control_groups() - others,
        failed=failed,
        record_of_failed=has_record,
        mended=mended,
    )


def test_killed_build_leaves_nothing_and_goes_on(base_build: BaseBuild) -> None:
    assert base_build.left == []
    assert base_build.groups == set()
    assert base_build.code == 128 + signal.SIGTERM
    runs = (base_build.killed, base_build.terminated, base_build.failed, base_build.mended)
    assert all(each.built for each in runs[:2])
    built = [package for each in runs for package in each.built]
    assert sorted(built) == sorted({*BASE, *SYSTEM})  # each once
    assert base_build.failed.reused == base_build.killed.built | base_build.terminated.built


def test_failed_package_is_named_and_the_others_are_finished(base_build: BaseBuild) -> None:
    failed = base_build.failed
    assert failed.failed == {TREE: "patch"}
    assert failed.skipped == set()
    assert not base_build.record_of_failed
    ended = "binpkgs:base: FAILED: 1 package of base failed "
    assert ended in failed.output
    rows = failed.output.partition(ended)[2]
    assert f"{TREE}-2.1.0: a patch does not apply" in rows
    assert "patches/app-text/tree/x.patch" in rows
    [log] = [row.split("log: ")[1] for row in rows.splitlines() if "  log: " in row]
    assert "Hunk #1 FAILED" in Path(log).read_text()
    for package in {*BASE, *SYSTEM} - {TREE}:
        assert package not in rows
    assert base_build.mended.built == {TREE}
    assert len(base_build.mended.reused) == len({*BASE, *SYSTEM}) - 1


@pytest.fixture(scope="module")
def both(base_build: BaseBuild) -> dict[str, list[dict[str, tuple[str, str]]]]:
    """The sets of base and java by each driver: USE and identity by CPV."""
    site = base_build.site
    java = run(site, "java")
    assert java.built == {*JAVA}
    assert java.reused == SYSTEM  # the base's packages are in the same store
    sets = {chroot: [identities(site, chroot)] for chroot in ("base", "java")}
    site.change(build={"driver": "emerge"})
    site.doit("binpkgs:java")
    for chroot, sets_of in sets.items():
        sets_of.append(identities(site, chroot))
    site.change(build={"driver": "per-package"})
    return sets


@pytest.mark.parametrize("chroot", ["base", "java"])
def test_both_drivers_build_the_same(
    both: dict[str, list[dict[str, tuple[str, str]]]], chroot: str
) -> None:
    by_package, at_once = both[chroot]
    assert by_package.keys() == at_once.keys()
    different = {cpv for cpv, built in by_package.items() if built != at_once[cpv]}
    assert {cpv.rpartition("-")[0] for cpv in different} == DIFFERENT.keys()


@dataclass(frozen=True)
class CaseBuilds:
    """Three runs of the cases: with failures, mended, and on the next day."""

    site: LabSite
    failed: Run
    set_of_failed: bool
    mended: Run
    next_day: Run
    again: str
    contents: dict[str, Contents]


@pytest.fixture(scope="module")
def case_builds(base_build: BaseBuild, tmp_path_factory: pytest.TempPathFactory) -> CaseBuilds:
    site, overlay = base_build.site, tmp_path_factory.mktemp("cases") / "overlay"
    write_overlay(overlay, "cases", cases.EBUILDS, cases.FILES)
    for path, text in cases.PORTAGE_DIR.items():
        write_atomic(site.layout.site / "cases" / path, text)
    packages = [f"{CATEGORY}/{pf.rpartition('-')[0]}" for pf in cases.EBUILDS]
    stack: dict[str, object] = {
        "base": "base",
        "overlays": ["cases"],
        "packages": packages,
        "portage_dir": "cases",
    }
    source: dict[str, object] = {"url": str(overlay)}
    site.change(**{"overlays.cases": source, "chroots.cases": stack})
    failed = run(site, "cases", code=1)
    has_set = site.layout.binpkgs("cases").exists()
    write_overlay(overlay, "cases", cases.MENDED, cases.FILES)
    site.doit("lock")
    mended = run(site, "cases")
    write_overlay(overlay, "cases", cases.NEXT_DAY, cases.NEXT_DAY_FILES)
    site.doit("lock")
    next_day = run(site, "cases")
    again = site.doit("binpkgs:cases")
    return CaseBuilds(site, failed, has_set, mended, next_day, again, contents(site, "cases"))


def cps(*names: str) -> set[str]:
    return {f"{CATEGORY}/{name}" for name in names}


def test_failures_stop_only_what_needs_them(case_builds: CaseBuilds) -> None:
    failed = case_builds.failed
    assert failed.failed == {
        f"{CATEGORY}/{name}": kind
        for name, kind in {
            "accuser": "configure",
            "headless": "compile",
            "undeclared": "compile",
            "unfetchable": "fetch",
        }.items()
    }
    assert failed.skipped == cps("waits")
    assert failed.reused == SYSTEM
    every = cps(*(pf.rpartition("-")[0] for pf in cases.EBUILDS))
    assert failed.built == every - failed.failed.keys() - failed.skipped
    assert not case_builds.set_of_failed


def test_message_names_what_is_missing_and_blames_nobody_else(case_builds: CaseBuilds) -> None:
    rows = case_builds.failed.output.partition("binpkgs:cases: FAILED: ")[2].splitlines()
    assert rows[0].startswith("4 packages of cases failed, 1 skipped")
    blamed = [row.split()[0] for row in rows[1:] if row.startswith(f"  {CATEGORY}/")]
    assert {name.removesuffix("-1:") for name in blamed} == case_builds.failed.failed.keys()
    text = "\n".join(rows)
    for words in (
        "missing, probably an undeclared dependency: header library.h",
        "missing, probably an undeclared dependency: command tool",
        f"skipped because {CATEGORY}/undeclared-1 failed: {CATEGORY}/waits-1",
        f"{CATEGORY}/accuser-1: configure failed in phase configure: its own fault",
        f"{CATEGORY}/unfetchable-1: cannot fetch a distfile: ",
    ):
        assert words in text
    logs = [Path(row.split("log: ")[1]) for row in rows if row.startswith("    log: ")]
    assert [log.exists() for log in logs] == [True] * 4


def test_after_the_fix_only_the_rest_is_built(case_builds: CaseBuilds) -> None:
    mended = case_builds.mended
    assert mended.built == cps("accuser", "headless", "undeclared", "unfetchable", "waits")
    assert mended.unchanged == mended.cut_off == set()


def test_next_day_builds_what_changed_and_stops_at_equal_outputs(case_builds: CaseBuilds) -> None:
    """A library's sub-slot moved, and an eclass has a new comment."""
    day = case_builds.next_day
    assert day.built == cps("library", "consumer", "headless", "inherits")
    assert day.unchanged == cps("inherits")
    assert day.cut_off == cps("depends")
    assert "binpkgs:cases" not in tasks_run(case_builds.again)


def test_cases_come_out_as_their_ebuilds_say(case_builds: CaseBuilds) -> None:
    of = {cpv.partition("/")[2]: each for cpv, each in case_builds.contents.items()}
    assert of["consumer-1"].metadata["RDEPEND"] == f"{CATEGORY}/library:0/2="
    answers = installed(case_builds.site, "cases", "answer")
    assert answers[f"{CATEGORY}/undeclared-1"] == b"hammer\n"
    assert answers[f"{CATEGORY}/looks-1"] == b""
    assert any(case_builds.site.layout.distfiles.iterdir())
    both = f"{CATEGORY}/runs-1\n{CATEGORY}/along-1\n"
    assert answers[f"{CATEGORY}/together-1"] == both.encode()
    owners = {path.rpartition("/")[2]: file.owner for path, file in of["owner-1"].files.items()}
    assert (owners["first"], owners["second"]) == ("first", "second")
    [program] = installed(case_builds.site, "cases", "consumer").values()
    assert b".symtab" in program  # it is not to be stripped
    assert not any(cpv.startswith("provided-") for cpv in of)
