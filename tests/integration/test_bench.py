"""Benchmarks clean up however they end, and print each row at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kit.processes import eventually
from tests.kit.project import PROJECT
from tests.programs import small_bench

pytestmark = pytest.mark.usefixtures("needs_sandbox", "needs_loop_device")
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.fixture(scope="session")
def needs_loop_device() -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices: modprobe loop, or a container with --privileged")


@contextmanager
def running_bench(work: Path) -> Iterator[subprocess.Popen[str]]:
    """A small benchmark that has printed its row and waits."""
    process = subprocess.Popen(
        [sys.executable, "-m", small_bench.MODULE, work],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = list(iter(process.stdout.readline, "ready\n"))
        assert any(line.startswith("a row") for line in lines), lines
        yield process
    finally:
        process.kill()
        process.communicate()


def traces(work: Path) -> list[str]:
    """The processes, mounts and loop devices of a benchmark, as this machine sees them."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    leftovers = [f"mount {line}" for line in mounts if str(work) in line]
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if str(work) in file.read_text():
                leftovers.append(f"loop device {file}")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(work) in (process / "cmdline").read_text():
                leftovers.append(f"process {process.name}")
            if str(work) in str((process / "cwd").readlink()):
                leftovers.append(f"process {process.name}")
    return leftovers


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_bench_ended_by_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with running_bench(tmp_path) as bench:
        assert any(trace.startswith("loop device") for trace in traces(tmp_path))
        bench.send_signal(number)
        assert bench.wait(20) == CODES[number]
        assert bench.stderr is not None
        assert bench.stderr.read() == f"the benchmark was ended by {number.name}\n"
        assert traces(tmp_path) == []
        assert not (tmp_path / "scratch").exists()


def test_bench_ended_while_it_writes_its_image_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", small_bench.MODULE, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL) as bench:
        assert eventually(lambda: list(tmp_path.glob("scratch/*")))
        bench.terminate()
        assert bench.wait(20) == 143
    assert traces(tmp_path) == []
    assert not (tmp_path / "scratch").exists()


def test_bench_killed_leaves_files_only_and_the_next_one_deletes_them(tmp_path: Path) -> None:
    with running_bench(tmp_path) as bench:
        bench.kill()
        bench.wait()
        assert eventually(lambda: traces(tmp_path) == []), traces(tmp_path)
    (tmp_path / "scratch/image").write_bytes(b"written when SIGKILL came")
    with running_bench(tmp_path) as bench:
        assert not (tmp_path / "scratch/image").exists()
        bench.terminate()
        bench.wait(20)
    assert not (tmp_path / "scratch").exists()


def test_bench_beside_another_one_is_refused(tmp_path: Path) -> None:
    with running_bench(tmp_path):
        second = subprocess.run(
            [sys.executable, "-m", small_bench.MODULE, tmp_path],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert "Busy" in second.stderr
