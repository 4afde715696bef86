"""Control groups of commands, of either version."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.system import cgroup
from tasks.system.cgroup import Group, limited


@pytest.fixture
def group() -> Iterator[Group]:
    with limited(memory=100 << 20, processes=50) as group:
        if not group.folders:
            pytest.skip("needs control groups")
        yield group


def run_in(group: Group, script: str) -> int:
    join = "".join(f"echo $$ >{folder}/cgroup.procs; " for folder in group.folders)
    return subprocess.run(["sh", "-c", join + script], check=False, capture_output=True).returncode


def test_memory_is_measured_and_limited(group: Group) -> None:
    assert run_in(group, "head -c 30000000 /dev/zero | tail -c 30000000 >/dev/null") == 0
    peak = group.peak_memory()
    assert peak is None or 25 << 20 < peak < 100 << 20
    assert not group.was_out_of_memory()
    assert run_in(group, "tail /dev/zero") != 0
    assert group.was_out_of_memory()


def test_processes_are_limited(group: Group) -> None:
    assert run_in(group, "true") == 0
    assert not group.was_out_of_processes()
    run_in(group, "for i in $(seq 100); do sleep 0.5 & done; wait")
    assert group.was_out_of_processes()


def test_group_is_deleted_at_the_end_and_those_of_killed_runs_are(group: Group) -> None:
    left = [folder.with_name("binmill-999999999-left") for folder in group.folders]
    other = [folder.with_name("binmill-1-other") for folder in group.folders]
    for folder in (*left, *other):
        folder.mkdir()
    try:
        with limited() as another:
            assert all(folder.is_dir() for folder in (*another.folders, *group.folders, *other))
            assert not any(folder.exists() for folder in left)
        assert not any(folder.exists() for folder in another.folders)
    finally:
        for folder in other:
            folder.rmdir()


def test_machine_without_control_groups_has_no_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "_TOP", tmp_path)
    with limited(memory=1, processes=1) as none:
        assert (none.folders, none.peak_memory()) == ((), None)
        assert not none.was_out_of_memory()
