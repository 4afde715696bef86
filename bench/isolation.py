"""Namespaces for a benchmark: whatever ends it, its processes, mounts and loop devices end with it.

Finally-clauses alone cannot promise that: a child of a child keeps a mount busy, and SIGKILL runs
no clause. The kernel ends a pid namespace with its first process and a mount namespace with its
last one, unmounts what was mounted there, and frees loop devices that `mount -o loop` attached.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tasks.system.command import started
from tasks.system.files import empty_trash, locked, remove_tree

WORK = Path(__file__).parent / "work"
_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def scratch(work: Path = WORK) -> Path:
    """The folder for the files of one run; empty when the run starts, deleted when it ends."""
    return work / "scratch"


def run_isolated(command: Sequence[str | Path], work: Path = WORK) -> int:
    """Run a command in mount and pid namespaces of its own; return its exit code.

    TERM, INT and HUP end it and exit with 128 + signal. After a SIGKILL the scratch folder stays
    until the next run, which deletes it first. Raises Busy while another run uses `work`.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # by nohup, or a shell's `&`
            signal.signal(number, _exit)
    with locked(work / "lock", "the benchmark"):
        _delete_scratch(work)
        scratch(work).mkdir()
        try:
            with started("unshare", *_NAMESPACES, "--", *command, stdout=None) as process:
                code = _wait(process)
        finally:
            _delete_scratch(work)
    if code < 0:
        sys.stderr.write(f"the benchmark was killed by signal {-code}\n")
    return code if code >= 0 else 128 - code


def end_on_term() -> None:
    """Make SIGTERM end this process, the first of its pid namespace, and the namespace with it.

    The kernel sends such a process only signals that it handles (pid_namespaces(7)).
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))


def _exit(number: int, _frame: FrameType | None) -> None:
    for other in _SIGNALS:  # a second one must not interrupt the cleaning up
        signal.signal(other, signal.SIG_IGN)
    sys.stderr.write(f"the benchmark was ended by {signal.Signals(number).name}\n")
    sys.exit(128 + number)


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        # with a timeout: a signal just before a wait without one would not end it
        with suppress(subprocess.TimeoutExpired):
            return process.wait(1)


def _delete_scratch(work: Path) -> None:
    remove_tree(scratch(work), work / "trash")
    empty_trash(work / "trash")  # of a run that was killed while it deleted
