"""Packages in clean buildroots, with the real Portage."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from tasks.buildroot.buildroot import Outcome
from tasks.buildroot.harvest import SideEffect
from tasks.system.cgroup import limited
from tasks.system.files import mounts_below
from tasks.system.sandbox import Limits
from tests.kit import package_contents
from tests.kit.buildroots import Buildroots, buildroots
from tests.kit.lab_site import LabSite

# Both drivers write their own FEATURES and MAKEOPTS into a package.
SETTINGS = ("metadata/FEATURES", "metadata/environment.bz2")
TOOL = """
src_install() {
	echo 'echo hammer' > tool || die
	dobin tool
	echo "TRIAL=declared" > 50trial || die
	doenvd 50trial
}
"""
USER = """
BDEPEND="trial/tool"
src_compile() {
	[[ -r /var/db/pkg/trial/tool-1/PF ]] || die "the tool is not in the package database"
	grep -q "TRIAL='declared'" /etc/profile.env || die "env-update did not run"
	tool > used || die "the tool is missing"
}
src_install() {
	insinto /usr/share/user
	doins used
}
"""


@pytest.fixture(scope="module")
def built_base(lab_site: LabSite) -> LabSite:
    """A site whose base was built by emerge, as a whole."""
    lab_site.change(**{"chroots.base": {"packages": ["app-arch/pbzip2", "app-misc/nosy"]}})
    lab_site.change(build={"driver": "emerge"})
    lab_site.doit("binpkgs:base")
    return lab_site


@pytest.fixture
def base(built_base: LabSite, tmp_path: Path) -> Buildroots:
    return buildroots(built_base.layout, tmp_path)


def installed(outcome: Outcome, path: str) -> str:
    assert outcome.layer is not None, (outcome, outcome.log.read_text()[-2000:])
    return (outcome.layer / path).read_text()


def processes_with(word: str) -> list[int]:
    """The processes of this machine that have a word in their command line."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes().split(b"\0"):
                pids.append(int(path.parent.name))
        except OSError:
            continue
    return pids


def nothing_is_left(base: Buildroots) -> bool:
    layout = base.site.layout
    groups = [p for p in Path("/sys/fs/cgroup").glob(f"**/binmill-{os.getpid()}-*") if p.is_dir()]
    return not mounts_below(layout.state) and not list(layout.work.glob("*")) and not groups


def test_package_is_the_same_as_from_one_big_chroot(base: Buildroots) -> None:
    bzip2 = base.build("app-arch/bzip2-1.0.8")
    pbzip2 = base.build("app-arch/pbzip2-1.1.13", "app-arch/bzip2-1.0.8")
    nosy = base.build("app-misc/nosy-1")
    reference = {
        each.cpv: base.chroot.collected(base.set) / each.path for each in base.set.packages
    }
    for outcome in (bzip2, pbzip2, nosy):
        assert (outcome.reason, outcome.status, outcome.side_effects) == ("built", 0, ())
        assert outcome.package is not None
        differences = package_contents.differences(reference[outcome.cpv], outcome.package)
        assert [each for each in differences if not each.startswith(SETTINGS)] == []
    assert nothing_is_left(base)
    layer = base.layer("app-arch/pbzip2-1.1.13")
    assert {path.name for path in layer.iterdir()} == {"usr", "var"}
    assert list((layer / "var").rglob("*/")) != []
    assert [p.name for p in (layer / "var/db/pkg").glob("*/*")] == ["pbzip2-1.1.13"]


def test_declared_dependency_is_there_and_no_other(base: Buildroots) -> None:
    tool, user = base.ebuild("trial/tool-1", TOOL), base.ebuild("trial/user-1", USER)
    assert base.build(tool).reason == "built"
    assert installed(base.build(user, tool), "usr/share/user/used") == "hammer\n"
    alone = base.build(user)
    assert (alone.reason, alone.status, alone.layer, alone.package) == ("failed", 1, None, None)
    assert "trial/user-1::trial failed (compile phase)" in alone.message
    assert "the tool is not in the package database" in alone.message
    assert nothing_is_left(base)


def test_build_number_is_the_one_asked_for(base: Buildroots) -> None:
    outcome = base.build(base.ebuild("trial/tool-1", TOOL), build_id=7)
    assert outcome.package is not None
    assert outcome.package.name == "tool-1-7.gpkg.tar"


def test_build_without_output_is_ended(base: Buildroots) -> None:
    body = "src_compile() { echo waiting; setsid sleep 98765; }"
    start = time.monotonic()
    outcome = base.build(base.ebuild("trial/hang-1", body), limits=Limits(seconds=200, silence=8))
    assert (outcome.reason, outcome.layer) == ("silent", None)
    assert time.monotonic() - start < 100
    assert "waiting" in outcome.log.read_text()
    assert processes_with("98765") == []
    assert nothing_is_left(base)


@pytest.mark.parametrize(
    ("body", "limits", "reason"),
    [
        ("while :; do sleep 1; echo .; done", Limits(seconds=12), "timeout"),
        ("yes", Limits(output=20 << 20), "log-too-large"),
        ("tail /dev/zero || die", Limits(memory=300 << 20), "out-of-memory"),
        (
            "local i; for i in {1..200}; do sleep 5 & done; wait",
            Limits(processes=100),
            "too-many-processes",
        ),
    ],
    ids=["endless", "endless log", "memory", "processes"],
)
def test_build_beyond_a_limit_is_ended(
    base: Buildroots, body: str, limits: Limits, reason: str
) -> None:
    with limited() as group:
        if (limits.memory or limits.processes) and not group.folders:
            pytest.skip("needs control groups")
    outcome = base.build(
        base.ebuild("trial/greedy-1", f"src_compile() {{ {body}; }}"), limits=limits
    )
    assert (outcome.reason, outcome.layer) == (reason, None)
    assert nothing_is_left(base)


def test_build_is_cancelled(base: Buildroots) -> None:
    hang = base.ebuild("trial/hang-1", "src_compile() { sleep 98764; }")
    outcome = base.build(hang, cancelled=lambda: bool(processes_with("98764")))
    assert outcome.reason == "cancelled"
    assert processes_with("98764") == []


def test_daemon_does_not_outlive_its_build(base: Buildroots) -> None:
    body = "src_compile() { setsid sleep 98763 > /dev/null 2>&1 < /dev/null & }"
    assert base.build(base.ebuild("trial/daemon-1", body)).reason == "built"
    assert processes_with("98763") == []
    assert nothing_is_left(base)


def test_build_cannot_write_distfiles_or_layers(base: Buildroots) -> None:
    base.build(base.ebuild("trial/tool-1", TOOL))
    before = sorted(base.layer("trial/tool-1").rglob("*"))
    body = """
pkg_setup() {
	: > "${PORTAGE_ACTUAL_DISTDIR:-/var/cache/distfiles}/evil" && die "distfiles can be written"
	rm /usr/bin/tool || die
	echo evil > /usr/bin/other || die
}
"""
    outcome = base.build(base.ebuild("trial/evil-1", body), "trial/tool-1")
    assert outcome.side_effects == (
        SideEffect("/usr/bin/other", "added"),
        SideEffect("/usr/bin/tool", "deleted"),
    )
    assert sorted(base.layer("trial/tool-1").rglob("*")) == before
    assert not (base.site.layout.distfiles / "evil").exists()


def test_package_with_side_effects_is_really_installed(base: Buildroots) -> None:
    """Two that add to the same file: in layers, one would hide what the other has added."""
    for name in ("one", "two"):
        body = f'pkg_postinst() {{ echo {name} >> "${{EROOT}}/etc/trial-cache" || die; }}'
        outcome = base.build(base.ebuild(f"trial/{name}-1", body))
        assert outcome.side_effects == (SideEffect("/etc/trial-cache", "added"),)
    user = base.ebuild(
        "trial/user-1", "src_install() { insinto /usr/share/user; doins /etc/trial-cache; }"
    )
    both = ("trial/two-1", "trial/one-1")
    base.build(base.ebuild("trial/tool-1", TOOL))
    outcome = base.build(user, "trial/tool-1", installs=both, build_id=2)
    assert installed(outcome, "usr/share/user/trial-cache") == "two\none\n"
    assert outcome.side_effects == ()
    assert outcome.package is not None
    assert outcome.package.name == "user-1-2.gpkg.tar"
    assert outcome.layer is not None
    assert [p.name for p in (outcome.layer / "var/db/pkg").glob("*/*")] == ["user-1"]
    assert installed(base.build(user, *both), "usr/share/user/trial-cache") == "one\n"


def test_package_that_replaces_another_version_may_delete_its_files(base: Buildroots) -> None:
    body = "src_install() { insinto /usr/share/grows; newins - %s <<< x; }"
    base.build(base.ebuild("trial/grows-1", body % "old"))
    outcome = base.build(base.ebuild("trial/grows-2", body % "new"), "trial/grows-1")
    assert (outcome.reason, outcome.side_effects) == ("built", ())
    seen = base.ebuild("trial/seen-1", "src_install() { insinto /; doins -r /usr/share/grows; }")
    outcome = base.build(seen, "trial/grows-1", "trial/grows-2")
    assert outcome.layer is not None
    assert [path.name for path in (outcome.layer / "grows").iterdir()] == ["new"]


def archive(seconds: int) -> bytes:
    """A tar archive with one file of that time."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("source")
        member.mtime = seconds
        tar.addfile(member)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("newest", "expected"), [(1_000_000_000, 1_000_000_000), (1, 315532800), (4e9, 315532800)]
)
def test_source_date_is_that_of_the_sources(base: Buildroots, newest: float, expected: int) -> None:
    body = """
src_unpack() { tar xf "${FILESDIR}/source.tar" || die; echo written now > config || die; }
src_compile() { echo "${SOURCE_DATE_EPOCH} ${OWN}" > compile || die; }
src_install() { echo "${SOURCE_DATE_EPOCH}" > install || die; insinto /d; doins compile install; }
"""
    files = {"source.tar": archive(int(newest))}
    base.etc = {"bashrc": "OWN=kept\n", "profile/profile.bashrc": "OWN+=-profile\n"}
    for year in (1_600_000_000, 1_700_000_000):  # the date of the tree
        dated = base.ebuild("trial/dated-1", body, files)
        for path in base.repository.rglob("*"):
            os.utime(path, (year, year))
        outcome = base.build(dated)
        assert installed(outcome, "d/compile") == f"{expected} kept\n"
        assert installed(outcome, "d/install") == f"{expected}\n"


def test_source_date_of_a_user_or_an_ebuild_is_kept(base: Buildroots) -> None:
    body = """
src_compile() { echo "${SOURCE_DATE_EPOCH}" > date || die; }
src_install() { insinto /d; doins date; }
"""
    plain = base.ebuild("trial/plain-1", body)
    assert installed(base.build(plain), "d/date") == "315532800\n"
    own = base.ebuild("trial/own-1", f"export SOURCE_DATE_EPOCH=5\n{body}")
    assert installed(base.build(own), "d/date") == "5\n"
    base.etc = {"package.env": "trial/plain six\n", "env/six": "SOURCE_DATE_EPOCH=6\n"}
    assert installed(base.build(plain), "d/date") == "6\n"


def test_work_directory_in_a_tmpfs_is_limited(base: Buildroots) -> None:
    base.tmpfs = 8 << 20
    body = "src_install() { stat -f -c %T . > kind; insinto /d; doins kind; }"
    kind = base.ebuild("trial/kind-1", body)
    assert installed(base.build(kind), "d/kind") == "tmpfs\n"
    big = base.ebuild(
        "trial/big-1", "src_compile() { dd if=/dev/zero of=big bs=1M count=16 || die; }"
    )
    assert base.build(big).reason == "disk-full"
    base.tmpfs = 32 << 20
    assert base.build(big).reason == "built"
    assert nothing_is_left(base)
