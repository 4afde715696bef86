"""The merge layer and the side effects of a package, from an upper layer."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.buildroot.harvest import SideEffect, harvest
from tasks.errors import NotTrusted
from tasks.system.files import remove_tree
from tests.kit.refused import refused

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts are devices")
MD5 = "d41d8cd98f00b204e9800998ecf8427e"


def write(top: Path, *paths: str) -> None:
    for path in paths:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(path)


def white_out(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def package(top: Path, cpv: str, *owned: str) -> None:
    lines = [f"obj /{path} {MD5} 1\n" for path in owned]
    write(top, f"var/db/pkg/{cpv}/PF")
    (top / "var/db/pkg" / cpv / "CONTENTS").write_text("".join(lines))


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """A merged-usr root."""
    lower = tmp_path / "lower"
    write(lower, "etc/passwd", "usr/sbin/old", "usr/bin/sh")
    (lower / "sbin").symlink_to("usr/sbin")
    (lower / "bin").symlink_to("/usr/bin")
    return lower


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    (tmp_path / "upper").mkdir()
    return tmp_path / "upper"


def harvested(upper: Path, *below: Path, mounts: Sequence[str] = ()) -> list[tuple[str, str]]:
    effects = harvest(upper, below, "a/b-1", mounts, upper.parent / "trash")
    assert all(isinstance(each, SideEffect) for each in effects)
    return [(each.path, each.change) for each in effects]


def files(top: Path) -> set[str]:
    return {
        str(path.relative_to(top))
        for path in top.rglob("*")
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir())
    }


def test_owned_files_below_linked_directories_are_the_packages(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1", "sbin/b", "bin/c d", "usr/share/with -> arrow")
    write(upper, "usr/sbin/b", "usr/bin/c d", "usr/share/with -> arrow")
    before = files(upper)
    assert harvested(upper, lower) == []
    assert files(upper) == before


def test_files_of_portage_itself_are_deleted(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1", "var/cache/b/.keep", "usr/lib/own/__pycache__/x.cpython-313.pyc")
    kept = {"var/cache/b/.keep", "usr/lib/own/__pycache__/x.cpython-313.pyc"}
    write(upper, *kept)
    write(upper, "var/cache/edb/counter", "var/log/emerge.log", "var/lib/portage/config")
    write(upper, "etc/profile.env", "etc/environment.d/10-gentoo-env.conf", "etc/ld.so.cache")
    write(upper, "var/db/.pkg.portage_lockfile", "usr/lib/p/__pycache__/y.cpython-313.pyc")
    for place in ("proc", "run", "var/tmp", "var/db/repos/gentoo", "usr/lib/p"):
        (upper / place).mkdir(parents=True, exist_ok=True)
    (lower / "usr/lib/p").mkdir(parents=True)
    assert harvested(upper, lower, mounts=["/var/db/repos/gentoo"]) == []
    assert files(upper) == {*kept, "var/db/pkg/a/b-1/PF", "var/db/pkg/a/b-1/CONTENTS"}


def test_changes_of_other_files_are_side_effects(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1", "usr/bin/b")
    write(upper, "usr/bin/b", "etc/passwd", "var/lib/b/state")
    (upper / "etc/passwd").write_text("changed")
    white_out(upper / "usr/bin/sh")
    white_out(upper / "usr/bin/never-there")
    assert harvested(upper, lower) == [
        ("/etc/passwd", "changed"),
        ("/usr/bin/sh", "deleted"),
        ("/var/lib", "added"),
        ("/var/lib/b", "added"),
        ("/var/lib/b/state", "added"),
    ]
    assert not os.path.lexists(upper / "usr/bin/never-there")


def test_file_that_was_only_opened_is_no_change(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1")
    write(upper, "etc/passwd")
    status = (lower / "etc/passwd").stat()
    os.utime(upper / "etc/passwd", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert harvested(upper, lower) == []
    assert not (upper / "etc").exists()


def test_replaced_version_may_be_deleted(upper: Path, lower: Path) -> None:
    package(lower, "a/b-0.9", "usr/sbin/old", "usr/bin/gone")
    write(lower, "usr/bin/gone")
    package(upper, "a/b-1", "sbin/b")
    write(upper, "usr/sbin/b")
    for path in ("usr/sbin/old", "usr/bin/gone", "usr/bin/sh", "var/db/pkg/a/b-0.9"):
        white_out(upper / path)
    assert harvested(upper, lower) == [("/usr/bin/sh", "deleted")]
    assert stat.S_ISCHR((upper / "usr/sbin/old").lstat().st_mode)


def test_same_version_replaced_in_its_place_may_delete_its_files(upper: Path, lower: Path) -> None:
    package(lower, "a/b-1", "usr/sbin/old")
    package(upper, "a/b-1", "usr/sbin/new")
    os.setxattr(upper / "var/db/pkg/a/b-1", "trusted.overlay.opaque", b"y")
    write(upper, "usr/sbin/new")
    white_out(upper / "usr/sbin/old")
    assert harvested(upper, lower) == []


def test_notes_of_overlayfs_about_layers_below_are_removed(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1", "usr/bin/b")
    write(upper, "usr/bin/b")
    for path in (upper / "usr/bin", upper / "usr/bin/b", upper / "var/db/pkg/a/b-1/PF"):
        os.setxattr(path, "trusted.overlay.origin", b"x")
    os.setxattr(upper / "usr/bin/b", "user.own", b"y")
    assert harvested(upper, lower) == []
    assert {name for path in upper.rglob("*") for name in os.listxattr(path)} == {"user.own"}


def opaque(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.setxattr(folder, "trusted.overlay.opaque", b"y")


def test_new_folder_hides_nothing_in_other_buildroots(upper: Path, lower: Path) -> None:
    """Older kernels mark every new folder as one that hides what is below."""
    package(upper, "a/b-1", "usr/share/b/x", "sbin/c")
    write(upper, "usr/share/b/x", "etc/new/x")
    for path in ("usr/share", "usr/share/b", "etc/new"):
        opaque(upper / path)
    assert harvested(upper, lower) == [("/etc/new", "added"), ("/etc/new/x", "added")]
    assert not any(os.listxattr(path) for path in upper.rglob("*"))


def test_folder_that_hides_files_of_others_is_a_side_effect(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1", "usr/bin/b")
    write(upper, "usr/bin/b")
    opaque(upper / "usr/bin")
    assert harvested(upper, lower) == [("/usr/bin", "deleted")]


def test_folder_that_replaces_that_of_an_older_version_is_none(upper: Path, lower: Path) -> None:
    package(lower, "a/b-0.9", "usr/share/b/x/old")
    write(lower, "usr/share/b/x/old")
    package(upper, "a/b-1", "usr/share/b/new")
    write(upper, "usr/share/b/new")
    opaque(upper / "usr/share/b")
    white_out(upper / "var/db/pkg/a/b-0.9")
    assert harvested(upper, lower) == []
    assert os.listxattr(upper / "usr/share/b") == ["trusted.overlay.opaque"]


@pytest.mark.parametrize("victim", ["a/victim-1", "a/b-c-1", "c/b-0.9"])
def test_files_of_a_package_that_was_removed_from_the_database_are_side_effects(
    upper: Path, lower: Path, victim: str
) -> None:
    package(lower, victim, "usr/bin/sh")
    package(upper, "a/b-1")
    white_out(upper / "var/db/pkg" / victim)
    white_out(upper / "usr/bin/sh")
    effects = harvested(upper, lower)
    assert effects == [("/usr/bin/sh", "deleted"), (f"/var/db/pkg/{victim}", "deleted")]


def test_entry_of_another_package_cannot_be_owned(upper: Path, lower: Path) -> None:
    package(lower, "a/victim-1", "usr/bin/sh")
    entry = "var/db/pkg/a/victim-1/CONTENTS"
    package(upper, "a/b-1", entry, "var/db/pkg/a/made-up-1/PF")
    write(upper, entry, "var/db/pkg/a/made-up-1/PF")
    assert harvested(upper, lower) == [
        ("/var/db/pkg/a/made-up-1", "added"),
        ("/var/db/pkg/a/made-up-1/PF", "added"),
        (f"/{entry}", "changed"),
    ]


@pytest.mark.parametrize(
    "content", ["obj /x", "obj x d41d8cd98f00b204e9800998ecf8427e 1", "sym /x 1", "dir", "\0"]
)
def test_database_that_is_none_is_refused(upper: Path, lower: Path, content: str) -> None:
    package(upper, "a/b-1")
    (upper / "var/db/pkg/a/b-1/CONTENTS").write_text(content + "\n")
    with refused(NotTrusted, "vdb-contents-malformed", package="a/b-1"):
        harvested(upper, lower)


def test_contents_that_is_a_link_is_refused(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1")
    (upper / "var/db/pkg/a/b-1/CONTENTS").unlink()
    (upper / "var/db/pkg/a/b-1/CONTENTS").symlink_to("/etc/passwd")
    with refused(NotTrusted, "vdb-contents-malformed", package="a/b-1"):
        harvested(upper, lower)


def test_links_in_a_circle_are_refused(upper: Path, lower: Path) -> None:
    (lower / "one").symlink_to("two")
    (lower / "two").symlink_to("one")
    package(upper, "a/b-1", "one/x")
    with refused(NotTrusted, "layer-links-in-a-circle"):
        harvested(upper, lower)


def test_links_lead_to_nothing_of_the_host(upper: Path, lower: Path, tmp_path: Path) -> None:
    """A link in a layer is read as one inside."""
    write(tmp_path, "host/secret")
    (lower / "opt").symlink_to(f"../../..{tmp_path}/host")
    package(upper, "a/b-1", "opt/secret")
    write(upper, "x")
    assert harvested(upper, lower) == [("/x", "added")]
    assert (tmp_path / "host/secret").exists()


def test_directories_of_any_depth_are_looked_at(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1")
    nested(upper, "d", 1400)  # more than Python's limit of recursion
    try:
        assert len(harvested(upper, lower)) == 1401
    finally:
        remove_tree(upper, upper.parent / "trash")  # pytest cannot


def nested(top: Path, name: str, depth: int) -> None:
    """Folders of that name in each other, and a file; the whole path may be too long to be used."""
    folder = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=folder)
        below = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("x", os.O_CREAT, dir_fd=folder))
    os.close(folder)


@pytest.mark.parametrize("place", ["", "usr", "var/lib"])
@pytest.mark.parametrize("depth", [14, 16, 20, 100])  # of 200 bytes each
def test_path_that_fits_nowhere_else_is_refused(
    upper: Path, lower: Path, place: str, depth: int
) -> None:
    """A path that is just short enough here would be too long below another folder."""
    package(upper, "a/b-1")
    (upper / place).mkdir(parents=True, exist_ok=True)
    nested(upper / place, "d" * 200, depth)
    try:
        if depth < 15:
            assert len(harvested(upper, lower)) >= depth
            return
        with refused(NotTrusted, "layer-path-too-long", package="a/b-1"):
            harvested(upper, lower)
    finally:
        remove_tree(upper, upper.parent / "trash")


def test_transient_path_may_be_too_long(upper: Path, lower: Path) -> None:
    package(upper, "a/b-1")
    (upper / "var/tmp").mkdir(parents=True)
    nested(upper / "var/tmp", "d" * 200, 100)
    assert harvested(upper, lower) == []


def test_links_that_lead_through_thousands_of_links_are_refused(
    upper: Path, lower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each link is cheap, but each is another way through the longest of targets."""
    (lower / "a").mkdir()
    for number in range(100):
        (lower / f"link{number}").symlink_to("/" + "a/../" * 800 + f"a/n{number}")
    package(upper, "a/b-1", *(f"link{number}/x" for number in range(100)))
    assert harvested(upper, lower) == []
    monkeypatch.setattr("tasks.buildroot.union.MOST_WORK", 4 << 20)
    with refused(NotTrusted, "layer-path-too-long", package="a/b-1"):
        harvested(upper, lower)


def test_paths_that_fill_the_memory_are_refused(
    upper: Path, lower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(upper, "a/b-1", *(f"{number}/{'a/' * 50}x" for number in range(10)))
    monkeypatch.setattr("tasks.buildroot.harvest.LONGEST", 10_000)
    with refused(NotTrusted, "layer-path-too-long", package="a/b-1"):
        harvested(upper, lower)
