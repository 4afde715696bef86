"""The pool with real programs: whatever ends a run, nothing of its builds is left."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.errors import CommandFailed
from tasks.system import command
from tasks.system.cancel import Cancelled, Scope, working_in
from tasks.system.files import mounts_below
from tests.kit.processes import alive, ends, eventually, processes_of
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.programs import build_in_pool

PACKAGES = [f"p{number}" for number in range(build_in_pool.BUILDS)]
CODES = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: -signal.SIGINT}


@contextmanager
def running_pool(case: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A pool whose buildroots are all at work."""
    with subprocess.Popen(
        python(build_in_pool, case, folder), cwd=PROJECT, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert eventually(lambda: all((folder / name).exists() for name in PACKAGES))
            yield process
        finally:
            process.kill()


def programs_in(folder: Path) -> list[int]:
    pids = [int(word) for name in PACKAGES for word in (folder / name).read_text().split()]
    assert len(pids) == 2 * build_in_pool.BUILDS
    return pids


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_signal_ends_all_builds(tmp_path: Path, number: signal.Signals) -> None:
    with running_pool("polite", tmp_path) as pool:
        pids = programs_in(tmp_path)
        assert all(map(alive, pids))
        start = time.monotonic()
        pool.send_signal(number)
        assert pool.wait(20) == CODES[number]
        assert time.monotonic() - start < 4  # no program had to be killed
        assert [pid for pid in pids if alive(pid)] == []
        assert pool.stderr is not None
        assert pool.stderr.read() == ""
    assert not (tmp_path / f"p{build_in_pool.BUILDS}").exists()  # the next one did not start


def test_programs_that_ignore_the_signal_are_killed(tmp_path: Path) -> None:
    with running_pool("stubborn", tmp_path) as pool:
        pids = programs_in(tmp_path)
        pool.terminate()
        assert pool.wait(30) == 143
        assert [pid for pid in pids if alive(pid)] == []


def test_second_interrupt_kills_at_once(tmp_path: Path) -> None:
    with running_pool("stubborn", tmp_path) as pool:
        pids = programs_in(tmp_path)
        start = time.monotonic()
        pool.send_signal(signal.SIGINT)
        time.sleep(0.5)
        pool.send_signal(signal.SIGINT)
        assert pool.wait(20) == -signal.SIGINT
        assert time.monotonic() - start < 4
        assert all(map(ends, pids))


@pytest.mark.parametrize("seed", range(8))
def test_signal_at_any_moment_leaves_nothing(tmp_path: Path, seed: int) -> None:
    """Builds start and end all the time, in several threads."""
    with running_pool("quick", tmp_path) as pool:
        time.sleep(random.Random(seed).uniform(0, 0.5))  # noqa: S311 - a moment, not a secret
        pool.terminate()
        assert pool.wait(20) == 143
        assert processes_of(tmp_path) == []
        assert pool.stderr is not None
        assert pool.stderr.read() == ""


def test_killed_pool_takes_its_programs_along(tmp_path: Path) -> None:
    with running_pool("polite", tmp_path) as pool:
        shells = programs_in(tmp_path)[::2]
        pool.kill()
        pool.wait(20)
        assert all(map(ends, shells))  # what they started is the buildroot's to end


@pytest.mark.usefixtures("needs_sandbox")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_sandboxes_end_with_the_pool(tmp_path: Path, number: signal.Signals) -> None:
    with running_pool("sandboxes", tmp_path) as pool:
        assert len(processes_of(tmp_path)) > 3 * build_in_pool.BUILDS
        pool.send_signal(number)
        pool.wait(30)
        if number == signal.SIGTERM:
            assert pool.returncode == 143
            assert list((tmp_path / "work").iterdir()) == []
        assert eventually(lambda: not processes_of(tmp_path)), processes_of(tmp_path)
        assert mounts_below(tmp_path) == []


def test_program_of_a_cancelled_thread_ends_and_the_next_does_not_start() -> None:
    scope = Scope()
    ended: list[str] = []
    started = threading.Event()

    def work() -> None:
        with working_in(scope):
            try:
                with command.started("sleep", "600") as process:
                    started.set()
                    process.wait()
            except Cancelled:
                ended.append("first")
            try:
                command.run("true")
            except Cancelled:
                ended.append("second")

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(20)
    scope.cancel()
    thread.join(20)
    assert ended == ["first", "second"]
    command.run("true")  # other threads are not concerned


def test_failure_of_a_cancelled_program_is_not_reported_as_one(tmp_path: Path) -> None:
    """A program that ends by the signal looks like one that failed."""
    scope = Scope()
    errors: list[BaseException] = []

    def work() -> None:
        with working_in(scope):
            try:
                command.run("sh", "-c", f"touch {tmp_path}/up; sleep 600", log=tmp_path / "log")
            except (Cancelled, CommandFailed) as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert eventually((tmp_path / "up").exists)
    scope.cancel()
    thread.join(20)
    assert [type(error) for error in errors] == [Cancelled]


def test_scope_without_programs_cancels_at_once() -> None:
    scope = Scope()
    start = time.monotonic()
    scope.cancel()
    scope.cancel()
    assert time.monotonic() - start < 2
    with pytest.raises(Cancelled), working_in(scope):
        command.run("true")
