"""The lab's parts that need no built lab, and, where one is built, what it promises."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from lab import archive, keys, mirror, overlay, snapshots, tree, upstream
from lab.upstream import SOURCES, Upstream
from tasks.errors import BinmillError, HostLacks, Stale
from tasks.system.command import run

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
def test_versions_are_written_as_gentoo_does(upstream_version: str, expected: str) -> None:
    assert archive.gentoo_version(upstream_version) == expected


def test_a_version_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(BinmillError, match="Gentoo version"):
        archive.gentoo_version("nightly+git")


def test_a_day_is_there_at_a_quarter_to_one_on_the_next() -> None:
    assert snapshots.newest_day(datetime(2026, 3, 27, 0, 44, tzinfo=UTC)) == date(2026, 3, 25)
    assert snapshots.newest_day(datetime(2026, 3, 27, 0, 45, tzinfo=UTC)) == date(2026, 3, 26)
    assert snapshots.made_at(date(2026, 3, 26)).timestamp() == 1774572300


def _distfiles(folder: Path) -> dict[str, tree.Distfile]:
    """A file for every package that the lab wants one for."""
    made = {}
    for template in SOURCES.glob("**/*.ebuild.in"):
        if "@ARCHIVE@" in template.read_text():
            package = f"{template.parents[1].name}/{template.parent.name}"
            file = folder / f"{template.parent.name}.tar.gz"
            file.write_bytes(package.encode())
            made[package] = tree.Distfile("1.0", file.name, "folder", file)
    return made


def test_the_second_day_differs_in_a_bump_and_a_new_package(tmp_path: Path) -> None:
    distfiles = _distfiles(tmp_path)
    first = set(tree.render([SOURCES / "tree"], distfiles, tmp_path / "1"))
    both = [SOURCES / "tree", SOURCES / "next"]
    second = set(tree.render(both, distfiles, tmp_path / "2"))
    assert first - second == {"app-text/tree-1.0"}
    assert second - first == {"app-text/tree-1.0-r1", "dev-libs/xxhash-1.0"}
    assert len(first) >= 16


def test_every_licence_and_category_is_known(tmp_path: Path) -> None:
    main = tmp_path / "main"
    tree.render([SOURCES / "tree", SOURCES / "next"], _distfiles(tmp_path), main)
    tree.add_licenses(main)
    known = {path.name for path in (main / "licenses").iterdir()}
    categories = (main / "profiles" / "categories").read_text().split()
    for template in SOURCES.glob("**/*.ebuild.in"):
        (line,) = [x for x in template.read_text().splitlines() if x.startswith("LICENSE=")]
        wanted = set(line.partition("=")[2].strip('"').split()) - {"||", "(", ")"}
        assert wanted <= known, template
        assert template.parents[1].name in [*categories, "dev-java"]


def test_manifests_hold_real_digests(tmp_path: Path) -> None:
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


def test_the_overlay_is_the_same_commit_every_time(tmp_path: Path) -> None:
    heads = []
    for name in ("one", "two"):
        lab = Upstream(tmp_path / name)
        lab.work.mkdir(parents=True)
        overlay.make(lab, _distfiles(tmp_path), datetime(2026, 3, 27, tzinfo=UTC))
        heads.append(run("git", "-C", lab.overlay, "rev-parse", overlay.BRANCH).stdout)
    assert heads[0] == heads[1]


def test_keys_are_made_once_and_sign(tmp_path: Path) -> None:
    # longer than a socket's path may be
    lab = Upstream(tmp_path / ("long" * 30))
    keys.make_keys(lab)
    before = lab.key("stages").read_bytes()
    keys.make_keys(lab)
    assert lab.key("stages").read_bytes() == before
    assert "BEGIN PGP SIGNED MESSAGE" in keys.sign_clear(lab, "stages", "text\n")
    primary = {role: keys.fingerprint(lab, role) for role in upstream.ROLES}
    assert len(set(primary.values())) == len(upstream.ROLES)


def test_the_next_day_is_published_once(tmp_path: Path) -> None:
    lab = Upstream(tmp_path)
    with pytest.raises(Stale):
        upstream.next_day(tmp_path)
    for folder in (lab.upcoming, lab.snapshots):
        folder.mkdir(parents=True)
    lab.facts_file.write_text(json.dumps({}))
    for name in ("gentoo-20260327.tar.xz", "gentoo-20260327.tar.xz.gpgsig"):
        (lab.upcoming / name).write_text(name)
    moved = upstream.next_day(tmp_path)
    assert moved == ["gentoo-20260327.tar.xz.gpgsig", "gentoo-20260327.tar.xz"]
    assert upstream.next_day(tmp_path) == []


def test_the_labs_mirror_is_known_from_what_else_is_on_its_port(tmp_path: Path) -> None:
    lab = Upstream(tmp_path / "lab")
    lab.mirror.mkdir(parents=True)
    lab.facts_file.write_text("{}")
    with mirror.serving(lab.directory, 0) as address:
        port = int(address.rsplit(":", 1)[1])
        with mirror.serving(lab.directory, port) as again:  # its own: used as it is
            assert again == address
        other = Upstream(tmp_path / "other")
        other.mirror.mkdir(parents=True)
        other.facts_file.write_text("{}")
        with (
            pytest.raises(HostLacks, match=f"something else listens on port {port}"),
            mirror.serving(other.directory, port),
        ):
            pass
