"""Shared by all tests: a marker by folder, no programs in unit tests, and skips with a reason."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.layout import Layout

if TYPE_CHECKING:
    from tests.kit.set_clock import SetClock

_HERE = Path(__file__).parent
pytest.register_assert_rewrite("tests.kit")


# As a terminal has it, for what tests start and interrupt: nohup ignores the first of them, a
# shell's `&` the others, and what is ignored is inherited.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its kind, and put the files in an order that keeps all processors busy.

    The first process makes the lab, for an e2e module, while others run integration tests.
    """
    kinds = {item: _kind(item) for item in items}
    for item, kind in kinds.items():
        if kind:
            item.add_marker(kind)
    first = next((item.path for item, kind in kinds.items() if kind == "e2e"), None)
    ranks = {"integration": 1, "e2e": 2, "unit": 3, "": 4}
    items.sort(key=lambda item: 0 if item.path == first else ranks[kinds[item]])


def _kind(item: pytest.Item) -> str:
    if not item.path.is_relative_to(_HERE):
        return ""
    kind = item.path.relative_to(_HERE).parts[0]
    return kind if kind in ("unit", "integration", "e2e") else ""


@pytest.fixture(autouse=True)
def _unit_tests_stay_inside(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit test that starts a program, forks or connects fails, even if a library does it."""
    if request.node.get_closest_marker("unit") is None:
        return

    def refuse(*arguments: Any, **_: Any) -> None:
        pytest.fail(f"a unit test went outside: {arguments[-1:]!r}")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    for name in ("system", "fork", "posix_spawn", "posix_spawnp"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty site of its own."""
    return Layout(site=tmp_path, state=tmp_path / "state")


@pytest.fixture
def clock() -> Iterator[SetClock]:
    """The time of day, which the test sets."""
    from tests.kit.set_clock import SetClock

    with ExitStack() as stack:
        yield SetClock(stack)


@pytest.fixture(scope="session")
def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: run the tests as root to include it")


@pytest.fixture(scope="session")
def needs_sandbox(needs_root: None, tmp_path_factory: pytest.TempPathFactory) -> None:  # noqa: ARG001
    """Skip, with the reason, on a machine that cannot set up sandboxes."""
    for program in ("unshare", "setpriv", "mount"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (Debian: util-linux, mount)")
    place = tmp_path_factory.mktemp("overlay")
    for part in ("lower", "upper", "work", "root"):
        (place / part).mkdir()
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    probe = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--net",
            "--ipc",
            "--uts",
            "--cgroup",
            "mount",
            "-t",
            "overlay",
            "overlay",
            "-o",
            options,
            place / "root",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if probe.returncode != 0:
        pytest.skip(f"needs namespaces and overlayfs: {probe.stderr.strip()}")
