"""Processes that run sandboxes.

python -m tests.programs.sandboxes CASE SITE PATH [MORE...]; the root inside is this machine's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.errors import OutOfMemory
from tasks.system.sandbox import Sandbox, enter, run, workspace


@contextlib.contextmanager
def sandbox(site: str, path: str) -> Iterator[Sandbox]:
    """A sandbox named `box` in a workspace of a site."""
    with workspace(Path(site) / "work", "box", Path(site) / "trash") as space:
        environment = {"PATH": path, "HOME": "/none"}
        yield Sandbox("box", (Path("/"),), space, environment=environment)


def exhaust_memory(site: str, path: str, group: str) -> None:
    """Use all memory of a control group; print the message of the error."""
    (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    with sandbox(site, path) as box:
        try:
            run(box, ["sh", "-c", "tail /dev/zero; echo it failed >&2; exit 1"])
        except OutOfMemory as error:
            print(error.message)


def sleep(site: str, path: str) -> None:
    """Start a daemon and sleep; SIGTERM ends it as it ends dodo.py."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with sandbox(site, path) as box:
        run(box, ["sh", "-c", "setsid sleep 600 & touch /started; sleep 600"])


def enter_with(site: str, path: str, *argv: str) -> None:
    """Enter it with this command; end with its exit code."""
    with sandbox(site, path) as box:
        sys.exit(enter(box, argv))


CASES: dict[str, Callable[..., None]] = {
    case.__name__: case for case in (exhaust_memory, sleep, enter_with)
}

if __name__ == "__main__":
    CASES[sys.argv[1]](*sys.argv[2:])
