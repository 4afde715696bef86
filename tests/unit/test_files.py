"""Files: complete or not there, and nothing copied or deleted through a link."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import BinmillError, Busy
from tasks.system import files
from tests.kit.files import names
from tests.kit.refused import refused


@pytest.mark.parametrize("data", ["text \u4e2d", b"\0bytes", "", b"x" * 3_000_000])
def test_write_atomic(tmp_path: Path, data: str | bytes) -> None:
    target = tmp_path / "a" / "b" / "file"
    files.write_atomic(target, "old")
    files.write_atomic(target, data)
    assert target.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert names(target.parent) == ["file"]


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755])
def test_write_atomic_sets_the_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        files.write_atomic(tmp_path / "file", "x", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.parametrize("step", ["fsync", "fchmod", "replace"])
def test_write_atomic_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "file"
    files.write_atomic(target, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((Path, step, full) if step == "replace" else (os, step, full)))
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_write_atomic_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "file").symlink_to("precious")
    files.write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "file").is_symlink()


def test_digests(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(data)
    assert files.sha512(tmp_path / "file") == hashlib.sha512(data).hexdigest()
    assert files.digests(tmp_path / "file", "md5", "sha256") == {
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def test_copy_plain(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(b"package")
    source.chmod(0o4755)
    files.copy_plain(source, target)
    assert target.read_bytes() == b"package"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert names(target.parent) == ["target"]


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _dangling(path: Path) -> None:
    path.symlink_to("/nonexistent")


def _hard(path: Path) -> None:
    path.with_name("other").write_text("x")
    path.hardlink_to(path.with_name("other"))


def _device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a device")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(path))


@pytest.mark.parametrize("make", [_link, _dangling, _hard, _device, _socket, os.mkfifo, os.mkdir])
def test_copy_plain_refuses(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "source")
    with refused(BinmillError, "file-not-plain", path=tmp_path / "source"):
        files.copy_plain(tmp_path / "source", tmp_path / "new" / "target")
    assert not (tmp_path / "new").exists()


def test_copy_plain_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.copy_plain(tmp_path / "nothing", tmp_path / "target")


def test_locked_names_the_holder(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "tree"
    with (
        files.locked(lock, "the tree"),
        refused(Busy, "locked-by-another-run", what="the tree") as busy,
        files.locked(lock, "the tree"),
    ):
        pytest.fail("both hold it")
    assert str(busy.value.fields["holder"]).startswith(f"process {os.getpid()} since ")
    with files.locked(lock, "the tree"):
        pass


def test_lock_file_alone_locks_nothing(tmp_path: Path) -> None:
    """The lock is the kernel's; the process that the file names is only for people."""
    lock = tmp_path / "lock"
    for process in (os.getpid(), os.getppid(), 1):
        lock.write_text(f"process {process} since 2026-03-10 00:00:00 UTC\n")
        with files.locked(lock, "the tree"):
            assert lock.read_text().startswith(f"process {os.getpid()} since ")


def test_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.locked(tmp_path / "lock", "x"):
        raise ZeroDivisionError
    with files.locked(tmp_path / "lock", "x"):
        pass


def test_all_locked_creates_no_lock_file(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with files.all_locked(folder):
        assert names(folder) == []


def test_all_locked_names_the_holder_of_any_lock(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    with (
        files.locked(folder / "seed.base", "seed:base"),
        refused(Busy, "locked-by-another-run", what="seed:base"),
        files.all_locked(folder),
    ):
        pytest.fail("both hold it")


def test_all_locked_needs_no_free_inode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with files.all_locked(tmp_path / "locks"):
        assert names(tmp_path) == []


def test_all_locked_keeps_new_locks_waiting(tmp_path: Path) -> None:
    folder, order = tmp_path / "locks", list[str]()

    def work() -> None:
        with files.locked(folder / "new", "new"):
            order.append("worker")

    worker = threading.Thread(target=work)
    with files.all_locked(folder):
        worker.start()
        worker.join(0.3)
        assert worker.is_alive()
        order.append("all")
    worker.join()
    assert order == ["all", "worker"]


def test_staged_folder_appears_at_the_end(tmp_path: Path) -> None:
    target, trash = tmp_path / "results" / "new", tmp_path / "trash"
    with files.staged(target, trash) as folder:
        (folder / "file").write_text("x")
        assert not target.exists()
    assert names(target) == ["file"]
    assert names(target.parent) == ["new"]


def test_staged_folder_replaces_the_old_one(tmp_path: Path) -> None:
    target, trash = tmp_path / "results", tmp_path / "trash"
    target.mkdir()
    (target / "old").write_text("x")
    with files.staged(target, trash) as folder:
        (folder / "new").write_text("x")
        assert names(target) == ["old"]
    assert names(target) == ["new"]


def test_staged_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    target, trash = tmp_path / "results", tmp_path / "trash"
    with pytest.raises(ZeroDivisionError), files.staged(target, trash) as folder:
        (folder / "file").write_text("x")
        raise ZeroDivisionError
    assert names(tmp_path) == ["trash"]
    assert names(trash) == []


def test_staged_folder_of_a_killed_run_is_deleted(tmp_path: Path) -> None:
    target, trash = tmp_path / "results", tmp_path / "trash"
    with files.staged(target, trash) as folder:
        place = folder
    place.mkdir()
    (place / "left").write_text("x")
    with files.staged(target, trash):
        pass
    assert names(target) == []


def test_remove_tree(tmp_path: Path) -> None:
    tree, trash = tmp_path / "tree", tmp_path / "trash"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("x")
    (tree / "a" / "to-folder").symlink_to(outside)
    (tree / "a" / "to-file").symlink_to(outside / "precious")
    (tree / "a" / "hard").hardlink_to(outside / "precious")
    (tree / "a").chmod(0o500)
    os.mkfifo(tree / "fifo")
    files.remove_tree(tree, trash)
    assert not tree.exists()
    assert names(trash) == []
    assert (outside / "precious").read_text() == "precious"


def test_remove_tree_of_nothing(tmp_path: Path) -> None:
    files.remove_tree(tmp_path / "nothing", tmp_path / "trash")
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["/", "/proc", None])
def test_of_a_link_only_the_link_is_removed(tmp_path: Path, place: str | None) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (tmp_path / "link").symlink_to(place or outside)
    files.remove_tree(tmp_path / "link", tmp_path / "trash")
    assert sorted(names(tmp_path)) == ["outside", "trash"]
    assert names(outside) == ["precious"]


def test_empty_trash_finishes_the_work_of_a_killed_run(tmp_path: Path) -> None:
    (tmp_path / "trash" / "left.1" / "a").mkdir(parents=True)
    (tmp_path / "trash" / "file").write_text("x")
    files.empty_trash(tmp_path / "trash")
    assert names(tmp_path / "trash") == []
    files.empty_trash(tmp_path / "nothing")


def test_entries_that_another_process_deletes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trash" / "tree").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "trash" / "tree" / str(number)).write_text("x")
    really = os.unlink

    def late(path: str, *, dir_fd: int | None = None) -> None:
        really(path, dir_fd=dir_fd)
        really(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", late)
    files.empty_trash(tmp_path / "trash")
    assert names(tmp_path / "trash") == []


def test_mounts_below(tmp_path: Path) -> None:
    assert "/proc" in files.mounts_below(Path("/proc"))
    assert "/" in files.mounts_below(Path("/"))
    assert "/proc" in files.mounts_below(Path("/"))
    assert files.mounts_below(tmp_path) == []
    assert files.mounts_below(Path("/pro")) == []
