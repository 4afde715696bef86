"""Signals: TERM and HUP end a run as Ctrl-C does, so that every `finally` is reached.

Programs that run are stopped by the blocks that started them (system.command), sandboxes with
them; a SIGKILL that leaves no time for that is answered by parent-death signals.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from types import FrameType, TracebackType


def end_cleanly() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, and Ctrl-C's traceback into nothing.

    Workers of `doit -n` are forked: they need this process's tasks and its handlers.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    multiprocessing.set_start_method("fork", force=True)
    sys.excepthook = _quiet


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):  # the reporter has told of that
        sys.__excepthook__(kind, error, trace)
