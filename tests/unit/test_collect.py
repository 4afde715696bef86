"""From PKGDIR to a set, also with files of a hostile chroot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.domain import Package
from tasks.errors import BinmillError, NotTrusted
from tasks.store.collect import collect_set, set_id
from tasks.system.files import sha512
from tests.kit.files import names
from tests.kit.packages import VALUES, gpkg
from tests.kit.refused import refused

PATH = "app-misc/hello/hello-2.10-r1-3.gpkg.tar"


class Build:
    """A finished build: its PKGDIR and its package database."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.pkgdir, self.database = place / "pkgdir", place / "db"
        self.entries: list[Path] = []
        self.pkgdir.mkdir()
        (self.pkgdir / "Packages").write_text("PACKAGES: 1\n\n")

    def entry(self, cpv: str, build_id: str) -> Path:
        path = self.database / cpv
        path.mkdir(parents=True)
        (path / "BUILD_ID").write_text(f"{build_id}\n")
        self.entries.append(path)
        return path

    def package(self, name: str = "hello", version: str = "2.10-r1", build_id: str = "3") -> Path:
        self.entry(f"app-misc/{name}-{version}", build_id)
        values = {**VALUES, "PF": f"{name}-{version}", "BUILD_ID": build_id}
        path = self.pkgdir / f"app-misc/{name}/{name}-{version}-{build_id}.gpkg.tar"
        return gpkg(path, values=values)

    def collect(self) -> tuple[Package, ...]:
        return collect_set(self.entries, self.pkgdir, self.place / "sets", self.place / "trash")

    def folder(self, packages: tuple[Package, ...]) -> Path:
        """The directory of a collected set."""
        return self.place / "sets" / set_id(packages)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_set_has_no_password_of_a_mirror(build: Build) -> None:
    """Portage writes the URLs of mirrors into its index, with their passwords."""
    build.package()
    head = "PACKAGES: 1\nGENTOO_MIRRORS: http://me:sesame@mirror.example\nTIMESTAMP: 5\n\n"
    (build.pkgdir / "Packages").write_text(head + "CPV: app-misc/hello-2.10-r1\n\n")
    text = (build.folder(build.collect()) / "Packages").read_text()
    assert text == "PACKAGES: 1\nTIMESTAMP: 5\n\nCPV: app-misc/hello-2.10-r1\n\n"


def test_set_has_the_installed_packages_and_no_others(build: Build) -> None:
    source = build.package()
    build.package("alpha", "1", "12")
    gpkg(build.pkgdir / "app-misc/other/other-1-1.gpkg.tar")  # built, but not of the set
    packages = build.collect()
    assert [p.cpv for p in packages] == ["app-misc/alpha-1", "app-misc/hello-2.10-r1"]
    assert packages[1] == Package(
        cpv="app-misc/hello-2.10-r1",
        build_id=3,
        slot="0",
        use="amd64 nls",
        repo="gentoo",
        path=PATH,
        size=source.stat().st_size,
        sha512=sha512(source),
    )
    folder = build.folder(packages)
    assert names(build.place / "sets") == [folder.name]
    assert names(folder) == ["Packages", "app-misc"]
    assert (folder / PATH).read_bytes() == source.read_bytes()
    assert names(folder / "app-misc") == ["alpha", "hello"]


def test_set_is_named_after_its_content(build: Build) -> None:
    for name in ("c", "a", "b"):
        build.package(name, "1", "1")
    first = build.collect()
    build.entries.reverse()
    (build.pkgdir / "Packages").write_text("PACKAGES: 3\nTIMESTAMP: 5\n\n")
    assert build.collect() == first
    other = gpkg(
        build.pkgdir / "app-misc/a/a-1-1.gpkg.tar",
        values={**VALUES, "PF": "a-1", "BUILD_ID": "1", "USE": "x"},
    )
    second = build.collect()
    assert other.exists()
    folders = {build.folder(first).name, build.folder(second).name}
    assert len(folders) == 2
    assert names(build.place / "sets") == sorted(folders)


def test_installed_package_that_was_not_packed_is_an_error(build: Build) -> None:
    build.package().unlink()
    with refused(BinmillError, "package-not-packed", package="app-misc/hello-2.10-r1"):
        build.collect()


def test_build_id_without_a_file_is_an_error(build: Build) -> None:
    build.package()
    (build.entries[0] / "BUILD_ID").write_text("4\n")
    with refused(BinmillError, "package-not-packed"):
        build.collect()


@pytest.mark.parametrize(
    "claim", [{"CATEGORY": "sys-apps"}, {"PF": "hello-2.11"}, {"BUILD_ID": "4"}, {"BUILD_ID": ""}]
)
def test_misnamed_package_is_refused(build: Build, claim: dict[str, str]) -> None:
    path = build.package()
    gpkg(path, values={**VALUES, **claim})
    with refused(NotTrusted, "package-misnamed", path=PATH):
        build.collect()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder", "linked folder", "socket"])
def test_file_that_is_not_regular_is_refused(build: Build, kind: str, tmp_path: Path) -> None:
    path = build.package()
    aside = tmp_path / "aside.gpkg.tar"
    path.rename(aside)
    if kind == "link":
        path.symlink_to(aside)
    elif kind == "hard link":
        path.hardlink_to(aside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        os.mknod(path, 0o140644)
    else:
        (tmp_path / "out").mkdir()
        aside.rename(tmp_path / "out" / path.name)
        path.parent.rmdir()
        path.parent.symlink_to(tmp_path / "out")
    with pytest.raises(BinmillError):
        build.collect()
    assert names(build.place / "sets") == []


def test_linked_category_is_refused(build: Build, tmp_path: Path) -> None:
    path = build.package()
    path.parent.parent.rename(tmp_path / "out")
    path.parent.parent.symlink_to(tmp_path / "out")
    with refused(NotTrusted, "pkgdir-is-link", path=path.parent.parent):
        build.collect()


def test_linked_index_is_refused(build: Build) -> None:
    build.package()
    (build.pkgdir / "Packages").unlink()
    (build.pkgdir / "Packages").symlink_to("/etc/passwd")
    with refused(BinmillError, "file-not-plain"):
        build.collect()


@pytest.mark.parametrize("cpv", ["app-misc/hello", "app-misc/.hello-1", ".x/hello-1"])
def test_malformed_name_is_refused(build: Build, cpv: str) -> None:
    build.entry(cpv, "1")
    with refused(NotTrusted, "package-name-malformed"):
        build.collect()


def test_build_id_that_is_missing_or_a_link_is_refused(build: Build) -> None:
    build.package()
    number = build.entries[0] / "BUILD_ID"
    number.rename(build.place / "number")
    with refused(NotTrusted, "vdb-lacks-key", key="BUILD_ID"):
        build.collect()
    number.symlink_to(build.place / "number")
    with refused(NotTrusted, "vdb-lacks-key", key="BUILD_ID"):
        build.collect()


def test_leftovers_of_an_earlier_run_are_not_collected(build: Build) -> None:
    (build.place / "sets" / ".incoming" / "left").mkdir(parents=True)
    build.package()
    assert names(build.folder(build.collect())) == ["Packages", "app-misc"]
