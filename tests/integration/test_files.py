"""The guarantees of files.py against other processes, kills and mounts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import Busy
from tasks.system import files
from tests.kit.files import names
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.programs import delete_over_mount, file_operations


def _process(case: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        python(file_operations, case, *arguments),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_reader_sees_the_old_file_or_the_new(tmp_path: Path) -> None:
    target = tmp_path / "file"
    sizes = (1, 3_000_000)
    files.write_atomic(target, b"x" * sizes[0])
    stopped = threading.Event()

    def write() -> None:
        for _ in range(10):
            for size in sizes:
                files.write_atomic(target, b"x" * size)
        stopped.set()

    writer = threading.Thread(target=write)
    writer.start()
    lengths = set()
    while not stopped.is_set():
        lengths.add(len(target.read_bytes()))
    writer.join()
    assert lengths <= set(sizes)
    assert names(tmp_path) == ["file"]


def test_a_write_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for _ in range(5):
        with _process("write_forever", target) as process:
            assert process.stdout
            process.stdout.readline()
            while not target.exists():
                pass
            process.kill()
        assert target.stat().st_size in (1000, 2_000_000)


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    with _process("hold_lock", tmp_path / "lock") as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path, holder: Any) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(Busy, match=rf"\(process {holder.pid} since "), files.locked(lock, "x"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert f"process {holder.pid}" in lock.read_text()  # an old note, without a lock
    with files.locked(lock, "x"):
        assert lock.read_text().startswith(f"process {os.getpid()} since ")


# Runs beside mounts of its own, never in the host's table.
@pytest.mark.usefixtures("needs_sandbox")
@pytest.mark.parametrize("how", ["bind", "file", "tmpfs", "root", "trash"])
@pytest.mark.parametrize("site", ["site", "sp ace", "caf\u00e9 \u4e2d"])
def test_a_tree_with_a_mount_in_it_is_not_deleted(tmp_path: Path, how: str, site: str) -> None:
    (tmp_path / site).mkdir()
    result = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "env",
            "PYTHONUTF8=1",
            *python(delete_over_mount, tmp_path / site, how),
        ],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    report = json.loads(result.stdout)
    assert len(report["mounts"]) == 1
    assert f"something is mounted at {report['mounts'][0]}" in report["message"]
    assert f"umount {report['mounts'][0]}" in report["message"]
    assert report["outside"] == ["precious"]
    assert report["left"] == ["outside", "trash"]


def test_several_processes_delete_at_once(tmp_path: Path) -> None:
    crowd = [_process("delete_trees", tmp_path, f"tree{number}") for number in range(4)]
    for process in crowd:
        process.communicate()
    assert [process.returncode for process in crowd] == [0, 0, 0, 0]
    assert names(tmp_path) == ["trash"]
    assert names(tmp_path / "trash") == []


@pytest.mark.usefixtures("needs_root")
@pytest.mark.parametrize("flag", ["i", "a"])
def test_a_tree_that_is_protected_from_root_is_removed(tmp_path: Path, flag: str) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    for path in ("a/b/x", "a/y", "z"):
        (tree / path).touch()
    outside = tmp_path / "outside"
    outside.touch()
    protected = [outside, *(path for path in tree.rglob("*"))]
    (tree / "a/link").symlink_to(outside)
    chattr = subprocess.run(["chattr", f"+{flag}", *protected], check=False, capture_output=True)
    try:
        if chattr.returncode != 0:
            pytest.skip("this file system has no such flags")
        with pytest.raises(PermissionError):
            (tree / "z").unlink()
        files.remove_tree(tree, tmp_path / "trash")
        assert names(tmp_path) == ["outside", "trash"]
        assert names(tmp_path / "trash") == []
        with pytest.raises(PermissionError):  # nothing else was changed
            outside.unlink()
    finally:
        subprocess.run(["chattr", "-R", f"-{flag}", tmp_path], check=False, capture_output=True)


def test_a_very_deep_tree_is_removed(tmp_path: Path) -> None:
    """A package may leave one behind: it must cost neither stack, descriptors nor path length."""
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 10, dir_fd=here)
        inner = os.open("d" * 10, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        files.remove_tree(tree, tmp_path / "trash")
        assert names(tmp_path) == ["trash"]
        assert names(tmp_path / "trash") == []
    finally:  # pytest itself cannot delete such a tree
        subprocess.run(["rm", "-rf", tree, tmp_path / "trash"], check=True)
