"""Signals: TERM and HUP end a run as Ctrl-C does, so that every `finally` is reached.

Running programs are stopped by the blocks that started them (system.command), sandboxes with
them. SIGKILL leaves no time for that; parent-death signals cover it.
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

from tasks.system import terminal

_PR_SET_PDEATHSIG = 1
_CLEANUP_SECONDS = 3
# The exception that the last signal has raised; empty when none is pending.
_pending: list[BaseException] = []


def end_cleanly() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, and print no traceback for Ctrl-C.

    Workers of `doit -n` are forked, since they need the tasks and handlers of this process. They
    are ended here, too: an exception raised while the next one is being forked gets lost, and that
    of a worker then ends the run.
    """
    for number, handler in (
        (signal.SIGTERM, _leave),
        (signal.SIGHUP, _leave),
        (signal.SIGINT, _interrupt),
    ):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and `&` of a shell ignore some
            signal.signal(number, handler)
    # A signal may interrupt the output of a line, and the terminal be gone when Python flushes it.
    atexit.register(terminal.flush)
    signal.signal(signal.SIGALRM, _remind)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    # The interpreter restores the defaults at its end; an alarm after that would kill.
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
    multiprocessing.set_start_method("fork", force=True)
    Finalize(None, _end_workers, exitpriority=0)
    sys.excepthook = _quiet


def _leave(number: int, _frame: FrameType | None) -> None:
    _pending[:] = [SystemExit(128 + number)]
    for worker in multiprocessing.active_children():
        worker.terminate()
    raise _pending[0]


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _pending[:] = [KeyboardInterrupt()]
    raise _pending[0]


def _remind(_number: int, _frame: FrameType | None) -> None:
    """Raise the exception of a signal again, each second, where it got lost.

    A finalizer or a library that catches every exception may swallow it, and the run would never
    end. While the exception is being handled, however long cleaning up takes, nothing is raised.
    The alarm also ends a blocking call that began just after the signal.
    """
    if not _pending:
        return
    exception = sys.exc_info()[1]
    while exception is not None:
        if isinstance(exception, (SystemExit, KeyboardInterrupt)):
            return
        exception = exception.__context__
    raise _pending[0]


def _end_workers() -> None:
    """End the workers that are left when the run ends; multiprocessing would wait forever.

    Ctrl-C at a terminal has reached them, too: they get some time to clean up.
    """
    _pending.clear()  # it was raised
    deadline = time.monotonic() + _CLEANUP_SECONDS
    for worker in multiprocessing.active_children():
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.terminate()


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG).

    For workers of `doit -n`, which would wait for work forever; their programs end with them.
    """
    import ctypes  # only workers pay for it

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os.kill(os.getpid(), signal.SIGKILL)


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):  # the reporter prints that
        sys.__excepthook__(kind, error, trace)
