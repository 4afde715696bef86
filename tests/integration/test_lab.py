"""The parts of the lab that need no complete lab."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from lab import archive, demo, keys, mirror, overlay, snapshots, tree, upstream
from lab.upstream import SOURCES, Facts, Upstream
from tasks import records
from tasks.errors import BinmillError, HostLacks, Stale
from tasks.layout import Layout
from tasks.portage import gpkg
from tasks.records import CLIENT, MEMBERS, TREE, AccessTestRecord, ClientRecord, TreeRecord
from tasks.snapshot.changes import version_key
from tasks.system.command import run
from tests.kit.refused import refused

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("upstream_version", "expected"),
    [
        ("1.2.13.dfsg", "1.2.13"),
        ("1.3.dfsg+really1.3.1", "1.3.1"),
        ("1.19+dfsg", "1.19"),
        ("2022-09-12", "20220912"),
        ("2.0.20221106", "2.0.20221106"),
        ("1.3.4.20200120", "1.3.4.20200120"),
    ],
)
def test_gentoo_version_of_an_upstream_version(upstream_version: str, expected: str) -> None:
    assert archive.gentoo_version(upstream_version) == expected


def test_gentoo_version_of_a_git_snapshot_is_refused() -> None:
    with refused(BinmillError, "lab-version-unusable", version="nightly+git"):
        archive.gentoo_version("nightly+git")


def test_newest_day_changes_at_a_quarter_to_one() -> None:
    assert snapshots.newest_day(datetime(2026, 3, 27, 0, 44, tzinfo=UTC)) == date(2026, 3, 25)
    assert snapshots.newest_day(datetime(2026, 3, 27, 0, 45, tzinfo=UTC)) == date(2026, 3, 26)
    assert snapshots.creation_time(date(2026, 3, 26)).timestamp() == 1774572300


def write_facts(lab: Upstream) -> None:
    """Write the facts of a lab in which nothing is built."""
    facts = Facts("", {}, [], "", "", "", "", {})
    lab.facts_file.write_text(json.dumps(asdict(facts)))


def test_summary_of_the_demo_names_generations_and_refused_users(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path / "state")
    records.save(layout, TREE(), TreeRecord("20260326", "c" * 40, 1))
    records.save(layout, CLIENT("base"), ClientRecord(3, ("a/b-1", "a/c-1")))
    records.save(layout, MEMBERS("base"), AccessTestRecord(3, "role:java", ("a/b-1",), ("anna",)))
    summary = demo.summary(layout)
    assert "generation 3, 2 packages installed by a client" in summary
    assert "1 package installed over TLS by a member of role:java; refused: anna" in summary


def _distfiles(folder: Path) -> dict[str, tree.Distfile]:
    """Make a file for every package whose ebuild needs an archive."""
    distfiles = {}
    for template in SOURCES.glob("**/*.ebuild.in"):
        if "@ARCHIVE@" in template.read_text():
            package = f"{template.parents[1].name}/{template.parent.name}"
            file = folder / f"{template.parent.name}.tar.gz"
            file.write_bytes(package.encode())
            distfiles[package] = tree.Distfile("1.0", file.name, "folder", file)
    return distfiles


def test_render_of_the_second_day_has_a_bump_and_a_new_package(tmp_path: Path) -> None:
    distfiles = _distfiles(tmp_path)
    first = set(tree.render([SOURCES / "tree"], distfiles, tmp_path / "1"))
    both = [SOURCES / "tree", SOURCES / "next"]
    second = set(tree.render(both, distfiles, tmp_path / "2"))
    assert first - second == {"app-text/tree-1.0"}
    assert second - first == {"app-text/tree-1.0-r1", "dev-libs/xxhash-1.0"}
    assert len(first) >= 16


def test_packages_of_the_seed_are_older_than_those_of_the_tree(tmp_path: Path) -> None:
    def versions(*layers: str) -> dict[str, str]:
        top = tmp_path / layers[-1]
        cpvs = tree.render([SOURCES / layer for layer in layers], _distfiles(tmp_path), top)
        return {tree.package_of(cpv): gpkg.parse_cpv(cpv).version for cpv in cpvs}

    first, then = versions("tree"), versions("tree", "seed")
    layer = {path.parent.relative_to(SOURCES) for path in SOURCES.glob("seed/*/*/metadata.xml")}
    older = {name for name in first if f"seed/{name}" in map(str, layer)}
    assert len(older) >= 10
    assert all(version_key(then[name]) < version_key(first[name]) for name in older)
    assert {"sys-devel/gcc", "sys-libs/glibc"} <= then.keys() - first.keys()


def test_ebuilds_use_only_licences_and_categories_of_the_repository(tmp_path: Path) -> None:
    main = tmp_path / "main"
    tree.render([SOURCES / "tree", SOURCES / "next"], _distfiles(tmp_path), main)
    tree.add_licenses(main)
    licences = {path.name for path in (main / "licenses").iterdir()}
    categories = (main / "profiles" / "categories").read_text().split()
    for template in SOURCES.glob("**/*.ebuild.in"):
        (line,) = [x for x in template.read_text().splitlines() if x.startswith("LICENSE=")]
        used = set(line.partition("=")[2].strip('"').split()) - {"||", "(", ")"}
        assert used <= licences, template
        assert template.parents[1].name in [*categories, "dev-java"]


def test_add_manifests_writes_digests_of_the_distfile(tmp_path: Path) -> None:
    distfiles = _distfiles(tmp_path)
    repository = tmp_path / "java"
    tree.render([SOURCES / "overlay" / "java"], distfiles, repository)
    tree.add_manifests(repository, distfiles, thin=True)
    line = (repository / "dev-libs/libffi/Manifest").read_text().split()
    content = b"dev-libs/libffi"
    assert line[:3] == ["DIST", "libffi.tar.gz", str(len(content))]
    assert line[4] == hashlib.blake2b(content).hexdigest()
    assert line[6] == hashlib.sha512(content).hexdigest()
    assert not (repository / "dev-java/java-tools/Manifest").exists()


def test_make_overlay_gives_the_same_commit_every_time(tmp_path: Path) -> None:
    heads = []
    for name in ("one", "two"):
        lab = Upstream(tmp_path / name)
        lab.work.mkdir(parents=True)
        overlay.make_overlay(lab, _distfiles(tmp_path), datetime(2026, 3, 27, tzinfo=UTC))
        heads.append(run("git", "-C", lab.overlay, "rev-parse", overlay.BRANCH).stdout)
    assert heads[0] == heads[1]


def test_make_keys_generates_keys_once(tmp_path: Path) -> None:
    # longer than the path of a socket can be
    lab = Upstream(tmp_path / ("long" * 30))
    keys.make_keys(lab)
    before = lab.key("stages").read_bytes()
    keys.make_keys(lab)
    assert lab.key("stages").read_bytes() == before
    assert "BEGIN PGP SIGNED MESSAGE" in keys.sign_clear(lab, "stages", "text\n")
    primary = {role: keys.fingerprint(lab, role) for role in upstream.ROLES}
    assert len(set(primary.values())) == len(upstream.ROLES)


def test_publish_next_day_publishes_once(tmp_path: Path) -> None:
    lab = Upstream(tmp_path)
    with refused(Stale, "lab-not-built", directory=tmp_path):
        upstream.publish_next_day(tmp_path)
    for folder in (lab.upcoming, lab.snapshots):
        folder.mkdir(parents=True)
    write_facts(lab)
    for name in ("gentoo-20260327.tar.xz", "gentoo-20260327.tar.xz.gpgsig"):
        (lab.upcoming / name).write_text(name)
    published = upstream.publish_next_day(tmp_path)
    assert published == ["gentoo-20260327.tar.xz.gpgsig", "gentoo-20260327.tar.xz"]
    assert upstream.publish_next_day(tmp_path) == []


def test_serving_shares_a_port_with_the_same_lab_only(tmp_path: Path) -> None:
    lab = Upstream(tmp_path / "lab")
    lab.mirror.mkdir(parents=True)
    write_facts(lab)
    with mirror.serving(lab.directory, 0) as address:
        port = int(address.rsplit(":", 1)[1])
        with mirror.serving(lab.directory, port) as again:
            assert again == address
        other = Upstream(tmp_path / "other")
        other.mirror.mkdir(parents=True)
        write_facts(other)
        with (
            refused(HostLacks, "lab-port-in-use", port=port),
            mirror.serving(other.directory, port),
        ):
            pass
