"""Signals: TERM and HUP end a run as Ctrl-C does, so that every `finally` is reached.

Programs that run are stopped by the blocks that started them (system.command), sandboxes with
them; a SIGKILL that leaves no time for that is answered by parent-death signals.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.util import Finalize
from types import FrameType, TracebackType

_PR_SET_PDEATHSIG = 1
_TIDY_SECONDS = 3


def end_cleanly() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, and Ctrl-C's traceback into nothing.

    Workers of `doit -n` are forked: they need this process's tasks and its handlers. They are
    ended here too: an exception that is raised while the next one is being forked gets lost,
    and that of a worker then ends the run.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    # A signal that comes just before a blocking call would wait for that to end: look each second.
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    # The interpreter's end gives signals their defaults back; an alarm after that would kill.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    multiprocessing.set_start_method("fork", force=True)
    Finalize(None, _end_workers, exitpriority=0)
    sys.excepthook = _quiet


def _end_workers() -> None:
    """End the workers that are left when the run ends; multiprocessing would wait for ever.

    A Ctrl-C at a terminal has reached them too: they are given the time to tidy up.
    """
    deadline = time.monotonic() + _TIDY_SECONDS
    for worker in multiprocessing.active_children():
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.terminate()


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG).

    For workers of `doit -n`, which would wait for work for ever; what they run goes with them.
    """
    import ctypes  # only workers pay for it

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os.kill(os.getpid(), signal.SIGKILL)


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):  # the reporter has told of that
        sys.__excepthook__(kind, error, trace)
