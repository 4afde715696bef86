"""Output for people: lines, and on a terminal a live line below them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import IO

_CLEAR = "\r\x1b[K"


class Screen:
    """The place where a run's output appears; its lines, live line and bars do not tear each other.

    `out` takes the lines of `say`, `err` the bars; None: standard output and error, as they are at
    that moment. Safe to use from several threads.
    """

    def __init__(self, out: IO[str] | None = None, err: IO[str] | None = None) -> None:
        self._out, self._err = out, err
        self._lock = threading.RLock()
        self._live: IO[str] | None = None  # the stream that shows a live line
        self._bars = 0  # bars that move by themselves; a live line would tear them

    @property
    def out(self) -> IO[str]:
        return self._out or sys.stdout

    @property
    def err(self) -> IO[str]:
        return self._err or sys.stderr

    def write(self, stream: IO[str], text: str) -> None:
        """Write at once, in place of a live line; go on in silence where the reader is gone.

        Work that was done must not be lost because its report could not be printed.
        """
        with self._lock:
            clear = _CLEAR if self._live is stream else ""
            self._live = None
            _write(stream, clear + text)

    def live(self, stream: IO[str], text: str) -> None:
        """Show one line that the next one, and the next `write`, replaces; terminals only."""
        with self._lock:
            if not self._bars:
                columns = shutil.get_terminal_size().columns
                _write(stream, _CLEAR + text[: columns - 1])
                self._live = stream

    @contextlib.contextmanager
    def pause_live_line(self) -> Iterator[None]:
        """Keep the live line away during the block, which shows a bar on `err`."""
        with self._lock:
            if self._live is not None:
                _write(self._live, _CLEAR)
            self._live = None
            self._bars += 1
        try:
            yield
        finally:
            with self._lock:
                self._bars -= 1


_SCREEN: ContextVar[Screen] = ContextVar("screen", default=Screen())  # noqa: B039 - one a process


def current() -> Screen:
    """The screen of this context."""
    return _SCREEN.get()


def say(text: str) -> None:
    """Print one line for the person who runs doit, at once."""
    write(current().out, text + "\n")


def write(stream: IO[str], text: str) -> None:
    """Write to a stream by way of the current screen: see Screen.write."""
    current().write(stream, text)


def live(stream: IO[str], text: str) -> None:
    """Show a live line on the current screen: see Screen.live."""
    current().live(stream, text)


def flush() -> None:
    """Write what is left in the buffers of standard output and error, at the end of the program.

    What no reader is there for is dropped; Python itself would end with 120 then.
    """
    for stream in (sys.stdout, sys.stderr):
        _write(stream, "")


@contextlib.contextmanager
def redirect_output(screen: Screen) -> Iterator[None]:
    """Send the output of the block to a screen, in this thread and those that copy its context."""
    token = _SCREEN.set(screen)
    try:
        yield
    finally:
        _SCREEN.reset(token)


def _write(stream: IO[str], text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, stream.fileno())  # also for what is flushed at the very end
            os.close(silence)
