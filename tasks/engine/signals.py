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
from collections.abc import Iterator
from multiprocessing.util import Finalize
from types import FrameType, TracebackType

from tasks.system import terminal

_PR_SET_PDEATHSIG = 1
# How long workers that are left may take until they are terminated, and then until they are killed.
_TERMINATE_SECONDS, _KILL_SECONDS = 3, 30
# Methods of Python that an exception must not leave half-way: a lock would stay taken, or those
# who wait would not be woken, and at the latest the end of the run would wait forever.
# Not those of multiprocessing: a worker may wait there for a process that is gone.
_LOCK_METHODS = {"__enter__", "__exit__", "notify", "notify_all", "set"}
_RETRY_SECONDS = 0.01
# The exception that the last signal has raised; empty when none is pending.
_pending: list[BaseException] = []


def end_cleanly() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, and print no traceback for Ctrl-C.

    Workers of `doit -n` are forked, since they need the tasks and handlers of this process.
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


def _leave(number: int, frame: FrameType | None) -> None:
    _pending[:] = [SystemExit(128 + number)]
    _raise_pending(frame)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    _pending[:] = [KeyboardInterrupt()]
    _raise_pending(frame)


def _raise_pending(frame: FrameType | None) -> None:
    """Raise the exception of a signal, or a moment later where it would do harm."""
    if any(map(_must_end, _stack(frame))):
        interval = signal.getitimer(signal.ITIMER_REAL)[1]
        signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS, interval)
    else:
        raise _pending[0]


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _must_end(frame: FrameType) -> bool:
    name = frame.f_code.co_name
    if name == "__set_name__":  # Python 3.11 turns every exception there into a RuntimeError
        return True
    return name in _LOCK_METHODS and frame.f_globals.get("__name__") == "threading"


def _remind(_number: int, frame: FrameType | None) -> None:
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
    _raise_pending(frame)


def _end_workers() -> None:
    """End the workers that are left when the run ends; multiprocessing would wait forever.

    Ctrl-C at a terminal has reached them, too: they get some time to clean up. One that lost the
    exception of its signal is killed; the kernel ends its programs with it.
    """
    _pending.clear()  # it was raised
    workers = multiprocessing.active_children()
    for seconds, end in ((_TERMINATE_SECONDS, "terminate"), (_KILL_SECONDS, "kill")):
        deadline = time.monotonic() + seconds
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        for worker in workers:
            getattr(worker, end)()


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG).

    For workers of `doit -n`, which would wait for work forever; their programs end with them.
    Ctrl-C ends them as TERM does: multiprocessing prints a traceback of a KeyboardInterrupt.
    """
    import ctypes  # only workers pay for it

    if signal.getsignal(signal.SIGINT) == _interrupt:
        signal.signal(signal.SIGINT, _leave)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before
        os.kill(os.getpid(), signal.SIGKILL)


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):  # the reporter prints that
        sys.__excepthook__(kind, error, trace)
