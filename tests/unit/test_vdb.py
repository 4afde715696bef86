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
