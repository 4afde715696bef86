"""Processes under `end_cleanly` that end in odd ways.

python -m tests.programs.end_cleanly CASE [SIGNAL]
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

from tasks.engine.signals import end_cleanly


class Late:
    """Takes its time while the interpreter takes modules down."""

    def __del__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        sleep(1.5)


class Deaf:
    """Signals its process where Python ignores every exception."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        sum(range(9))


def end_late() -> None:
    """End well, but slowly."""
    globals()["late"] = Late()


def lose_exception(number: int) -> None:
    """Get a signal whose exception is lost."""
    Deaf(number)
    time.sleep(60)


def ignore_signals() -> None:
    """Go on after signals that the caller ignores."""
    for number in (signal.SIGHUP, signal.SIGINT):
        os.kill(os.getpid(), number)
    print("goes on")


@contextlib.contextmanager
def slow_cleanup() -> Iterator[None]:
    """Handle an exception and sleep on the way out."""
    try:
        yield
    finally:
        with contextlib.suppress(ZeroDivisionError):
            _ = 1 / 0
        time.sleep(2.5)
        print("tidy")


def clean_up_slowly(number: int) -> None:
    """Get a signal and take long to clean up."""
    with slow_cleanup():
        os.kill(os.getpid(), number)
        time.sleep(60)


def leave_worker() -> None:
    """End while a worker of multiprocessing still runs."""
    multiprocessing.Process(target=time.sleep, args=(600,)).start()
    raise SystemExit(5)


def leave_text_in_buffer(number: int) -> None:
    """End by a signal between writing a line and its flush."""
    sys.stdout.write("a line")
    os.kill(os.getpid(), number)


CASES: dict[str, Callable[..., None]] = {
    case.__name__: case
    for case in (
        end_late,
        lose_exception,
        ignore_signals,
        clean_up_slowly,
        leave_worker,
        leave_text_in_buffer,
    )
}

if __name__ == "__main__":
    end_cleanly()
    CASES[sys.argv[1]](*map(int, sys.argv[2:]))
