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
# What the last signal has raised.
_asked: list[BaseException] = []


def end_cleanly() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, and Ctrl-C's traceback into nothing.

    Workers of `doit -n` are forked: they need this process's tasks and its handlers. They are
    ended here too: an exception that is raised while the next one is being forked gets lost,
    and that of a worker then ends the run.
    """
    for number, handler in (
        (signal.SIGTERM, _leave),
        (signal.SIGHUP, _leave),
        (signal.SIGINT, _interrupt),
    ):
        if signal.getsignal(number) != signal.SIG_IGN:  # by nohup, or a shell's `&`
            signal.signal(number, handler)
    signal.signal(signal.SIGALRM, _remind)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    # The interpreter's end gives signals their defaults back; an alarm after that would kill.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    multiprocessing.set_start_method("fork", force=True)
    Finalize(None, _end_workers, exitpriority=0)
    sys.excepthook = _quiet


def _leave(number: int, _frame: FrameType | None) -> None:
    _asked[:] = [SystemExit(128 + number)]
    for worker in multiprocessing.active_children():
        worker.terminate()
    raise _asked[0]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _asked[:] = [KeyboardInterrupt()]
    raise _asked[0]


def _remind(_number: int, _frame: FrameType | None) -> None:
    """Raise once more what a signal has raised, where that got lost; each second.

    A library that takes every exception for an answer, a finalizer: the run would go on for ever.
    Who is on the way out is left alone, however long tidying up takes. That somebody looks each
    second also ends a blocking call which a signal preceded by a moment.
    """
    if not _asked:
        return
    on_its_way = sys.exc_info()[1]
    while on_its_way is not None:
        if isinstance(on_its_way, (SystemExit, KeyboardInterrupt)):
            return
        on_its_way = on_its_way.__context__
    raise _asked[0]


def _end_workers() -> None:
    """End the workers that are left when the run ends; multiprocessing would wait for ever.

    A Ctrl-C at a terminal has reached them too: they are given the time to tidy up.
    """
    _asked.clear()  # it has arrived
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
