"""Manual changes: the entries of an upper layer, even a hostile one, that are kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tasks.chroot.manual_changes import commit, copy_layer, prune, read_mark
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.system.files import remove_tree
from tests.kit.files import names
from tests.kit.refused import refused

pytestmark = pytest.mark.usefixtures("needs_root")


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    folder = tmp_path / "state/work/enter-java/upper"
    folder.mkdir(parents=True)
    return folder


def prune_upper(upper: Path, *below: Path) -> bool:
    return prune(upper, below, ["/var/db/repos/gentoo", "/etc/resolv.conf"], upper.parent / "trash")


@pytest.mark.parametrize("link", ["tmp", "var", "var/cache", "etc", "__pycache__", "proc"])
def test_no_link_inside_leads_out(upper: Path, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    for place in ("cache/kept", "tmp/kept", "kept.cpython-311.pyc"):
        (outside / place).parent.mkdir(parents=True, exist_ok=True)
        (outside / place).write_text("x")
    (upper / link).parent.mkdir(parents=True, exist_ok=True)
    (upper / link).symlink_to(outside)
    modified = prune_upper(upper)
    assert modified == (link not in ("proc", "tmp", "var/cache"))  # these paths are never kept
    assert sorted(p.name for p in outside.rglob("*") if p.is_file()) == [
        "kept",
        "kept",
        "kept.cpython-311.pyc",
    ]


def test_mount_point_and_its_parents_are_no_change(upper: Path) -> None:
    for place in ("var/db/repos/gentoo", "proc", "sys", "dev", "run", "etc"):
        (upper / place).mkdir(parents=True)
    (upper / "etc/resolv.conf").touch()
    assert not prune_upper(upper)
    assert names(upper) == []


def test_file_below_the_parent_of_a_mount_point_is_a_change(upper: Path) -> None:
    (upper / "var/db/repos").mkdir(parents=True)
    (upper / "var/db/repos/mine").touch()
    assert prune_upper(upper)
    assert (upper / "var/db/repos/mine").exists()


def test_entry_that_was_only_copied_up_is_no_change(upper: Path, tmp_path: Path) -> None:
    below = tmp_path / "below"
    for layer in (below, upper):
        (layer / "etc").mkdir(parents=True)
        (layer / "etc/hosts").write_text("x")
        os.utime(layer / "etc/hosts", (1, 1))
    os.utime(upper / "etc", (5, 5))
    assert not prune_upper(upper, below)
    for change in ("time", "mode", "owner", "attribute", "folder's mode"):
        (upper / "etc").mkdir()
        (upper / "etc/hosts").write_text("y")
        os.utime(upper / "etc/hosts", (1, 2 if change == "time" else 1))
        if change == "mode":
            (upper / "etc/hosts").chmod(0o600)
        elif change == "owner":
            os.chown(upper / "etc/hosts", 250, 0)
        elif change == "attribute":
            os.setxattr(
                upper / "etc/hosts",
                "security.capability",
                bytes.fromhex("0100000200200000000000000000000000000000"),
            )
        elif change == "folder's mode":
            (upper / "etc").chmod(0o700)
        assert prune_upper(upper, below), change
        assert (upper / "etc/hosts").exists() == (change != "folder's mode")
        (upper / "etc/hosts").unlink(missing_ok=True)
        (upper / "etc").rmdir()


def test_compiled_module_of_a_lower_source_is_no_change(upper: Path) -> None:
    cache = upper / "usr/lib/python/__pycache__"
    cache.mkdir(parents=True)
    (cache / "others.cpython-311.pyc").touch()
    (cache / "mine.cpython-311.pyc").touch()
    (cache.parent / "mine.py").touch()
    assert prune_upper(upper)
    assert names(cache) == ["mine.cpython-311.pyc"]


def test_deleted_file_and_opaque_directory_are_changes(upper: Path, tmp_path: Path) -> None:
    below = tmp_path / "below"
    (below / "opt").mkdir(parents=True)
    (upper / "opt").mkdir()
    os.setxattr(upper / "opt", "trusted.overlay.opaque", b"y")
    assert prune_upper(upper, below)
    (upper / "opt").rmdir()
    os.mknod(upper / "opt", stat.S_IFCHR, 0)
    assert prune_upper(upper, below)
    assert stat.S_ISCHR((upper / "opt").lstat().st_mode)


def test_very_deep_tree_is_pruned(upper: Path, tmp_path: Path) -> None:
    here = os.open(upper, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    try:
        assert prune_upper(upper)
    finally:  # pytest cannot delete a tree of that depth
        remove_tree(upper, tmp_path / "trash")


def test_mark_names_the_layer_until_the_changes_are_undone(layout: Layout, upper: Path) -> None:
    (layout.state / "seeds/x").mkdir(parents=True)
    (upper / "file").write_text("mine")
    assert commit(layout, "java", upper, ["seeds/x"], [])
    mark = read_mark(layout, "java")
    assert mark
    assert mark.over == ("seeds/x",)
    assert (layout.state / mark.layer / "file").read_text() == "mine"
    assert not upper.exists()
    upper.mkdir()
    copy_layer(upper, layout.state / mark.layer)
    (upper / "file").unlink()
    assert not commit(layout, "java", upper, ["seeds/x"], [])  # all changes are undone
    assert read_mark(layout, "java") is None
    assert (layout.state / mark.layer / "file").read_text() == "mine"


def test_damaged_mark_is_refused(layout: Layout) -> None:
    mark = layout.manual_changes("java") / "layer.json"
    mark.parent.mkdir(parents=True)
    for text in ("", "{}", "7", '{"layer": "x", "over": 7}'):
        mark.write_text(text)
        with refused(BinmillError, "manual-mark-damaged", path=mark, chroot="java"):
            read_mark(layout, "java")
