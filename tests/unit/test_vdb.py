"""The database of installed packages that a build leaves in its upper layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.portage import vdb
from tests.kit.refused import refused


def entry(upper: Path, name: str) -> Path:
    path = upper / "var/db/pkg" / name
    path.mkdir(parents=True)
    return path


def test_entries_are_the_packages_and_nothing_else(tmp_path: Path) -> None:
    packages = [entry(tmp_path, name) for name in ("b-c/d-1", "a-b/c-2", "a-b/c-1-r1")]
    entry(tmp_path, "a-b/-MERGING-x-1")
    (tmp_path / "var/db/pkg/a-b/.lock").write_text("")
    (tmp_path / "var/db/pkg/a-b/link-1").symlink_to(packages[0])
    (tmp_path / "var/db/pkg/x-y").symlink_to("a-b")
    (tmp_path / "var/db/pkg/file").write_text("")
    assert vdb.entries(tmp_path) == sorted(packages)


def test_build_that_installed_nothing_is_refused(tmp_path: Path) -> None:
    with refused(BinmillError, "nothing-installed"):
        vdb.entries(tmp_path)


@pytest.mark.parametrize("part", ["var", "var/db", "var/db/pkg"])
def test_database_that_leads_out_of_the_chroot_is_refused(tmp_path: Path, part: str) -> None:
    for name in ("var/db/pkg/a-b/c-1", "db/pkg/a-b/c-1", "pkg/a-b/c-1", "a-b/c-1"):
        (tmp_path / "host" / name).mkdir(parents=True)
    link = tmp_path / "upper" / part
    link.parent.mkdir(parents=True)
    leads = {"var": "host", "var/db": "host/db", "var/db/pkg": "host/pkg"}[part]
    link.symlink_to(tmp_path / leads)
    with refused(NotTrusted, "vdb-is-link", path=f"/{part}"):
        vdb.entries(tmp_path / "upper")


def test_value_is_a_regular_file_of_the_entry(tmp_path: Path) -> None:
    package = entry(tmp_path, "a-b/c-1")
    (package / "SLOT").write_text("0/1\n")
    assert vdb.value(package, "SLOT") == "0/1"
    (package / "BUILD_ID").symlink_to("SLOT")
    for key in ("BUILD_ID", "USE"):
        with refused(NotTrusted, "vdb-lacks-key", package="a-b/c-1", key=key):
            vdb.value(package, key)


def test_value_of_any_size_takes_no_memory(tmp_path: Path) -> None:
    package = entry(tmp_path, "a-b/c-1")
    with (package / "BUILD_ID").open("wb") as stream:
        stream.truncate(1 << 40)
    with refused(NotTrusted, "vdb-lacks-key", package="a-b/c-1", key="BUILD_ID"):
        vdb.value(package, "BUILD_ID")


def test_contents_are_the_paths_of_a_package(tmp_path: Path) -> None:
    package = entry(tmp_path, "a-b/c-1")
    lines = (
        "dir /usr/with -> arrow",
        f"obj /usr/a b {'0' * 32} 12",
        "sym /usr/l k -> ../t -> x 12",
        "fif /run/f",
    )
    (package / "CONTENTS").write_text("".join(f"{line}\n" for line in lines))
    paths = ["/usr/with -> arrow", "/usr/a b", "/usr/l k", "/run/f"]
    assert list(vdb.contents(package)) == paths


@pytest.mark.parametrize(
    "line",
    [
        "obj /x 0 1",
        "sym /x 1",
        "sym /x ->  1",
        "sym x -> y 1",
        "sym /x -> y",
        "dir x",
        "",
        # an expression with two open ends would take hours for this one
        "sym /" + " -> " * 200_000,
    ],
    ids=lambda line: line[:12],
)
def test_malformed_line_of_contents_is_refused(tmp_path: Path, line: str) -> None:
    package = entry(tmp_path, "a-b/c-1")
    (package / "CONTENTS").write_text(f"{line}\n")
    with refused(NotTrusted, "vdb-contents-malformed", package="a-b/c-1"):
        list(vdb.contents(package))
