"""Layers with real owners and modes, written as root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.chroot.layers import commit, contents, write_file
from tasks.errors import BinmillError, HostLacks
from tests.kit.files import names
from tests.kit.refused import refused

pytestmark = pytest.mark.usefixtures("needs_root")


def mode_and_owner(path: Path) -> tuple[str, int, int]:
    status = path.lstat()
    return oct(status.st_mode & 0o7777), status.st_uid, status.st_gid


def folder(path: Path, mode: int, uid: int, gid: int) -> Path:
    path.mkdir(parents=True)
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def test_directories_are_as_in_the_topmost_layer(tmp_path: Path) -> None:
    top, seed, upper = tmp_path / "top", tmp_path / "seed", tmp_path / "upper"
    folder(seed / "var", 0o755, 0, 0)
    folder(seed / "var/lib", 0o2770, 250, 4242)
    folder(top / "var", 0o711, 1000, 1000)
    upper.mkdir()
    before = os.umask(0o077)
    try:
        write_file(upper, [top, seed], "var/lib/new/file", "text\n")
    finally:
        os.umask(before)
    assert mode_and_owner(upper / "var") == ("0o711", 1000, 1000)
    assert mode_and_owner(upper / "var/lib") == ("0o2770", 250, 4242)
    assert mode_and_owner(upper / "var/lib/new") == (
        "0o755",
        0,
        4242,
    )  # as mkdir(2) creates it there
    assert mode_and_owner(upper / "var/lib/new/file") == ("0o644", 0, 0)
    write_file(upper, [], "var/lib/other", "x")
    assert mode_and_owner(upper / "var/lib") == ("0o2770", 250, 4242)  # what is there stays


@pytest.mark.parametrize("kind", ["absolute", "climbing", "inside", "file"])
def test_no_link_is_followed(tmp_path: Path, kind: str) -> None:
    seed, upper, out = tmp_path / "seed", tmp_path / "upper", tmp_path / "out"
    for path in (seed, upper, out):
        path.mkdir()
    if kind == "file":
        (seed / "etc").write_text("")
    else:
        leads = {"absolute": str(out), "climbing": "../out", "inside": "other"}[kind]
        (seed / "etc").symlink_to(leads)
    with refused(BinmillError, "layer-lacks-directory", path="/etc", layer=seed):
        write_file(upper, [seed], "etc/hosts", "x")
    assert names(out) == []


def test_commit_writes_a_layer_once(tmp_path: Path) -> None:
    seed, target, trash = tmp_path / "seed", tmp_path / "layers/java/id", tmp_path / "trash"
    folder(seed / "etc", 0o751, 0, 7)
    files = contents("java", ["base", "java"])
    commit(files, [seed], target, trash)
    assert {f"etc/{n}": (target / "etc" / n).read_text() for n in names(target / "etc")} == files
    assert mode_and_owner(target) == ("0o755", 0, 0)
    assert mode_and_owner(target / "etc") == ("0o751", 0, 7)
    assert names(target.parent) == ["id"]
    inode = target.stat().st_ino
    commit({"etc/other": "never"}, [seed], target, trash)  # it is never written again
    assert (target.stat().st_ino, names(target / "etc")) == (inode, sorted(n[4:] for n in files))


def test_failed_commit_leaves_no_layer(tmp_path: Path) -> None:
    seed, target, trash = tmp_path / "seed", tmp_path / "layers/id", tmp_path / "trash"
    seed.mkdir()
    (seed / "etc").symlink_to("/etc")
    files = {"opt/x": "1", "etc/hosts": "2"}
    with pytest.raises(BinmillError):
        commit(files, [seed], target, trash)
    assert not target.exists()
    (seed / "etc").unlink()
    commit(files, [seed], target, trash)
    assert names(target) == ["etc", "opt"]
    assert names(target.parent) == ["id"]


def test_commit_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostLacks, match="only root can make a chroot's layer"):
        commit({}, [], tmp_path / "id", tmp_path / "trash")
