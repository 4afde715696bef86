"""Output for people: lines, and on a terminal live lines below them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from multiprocessing import parent_process
from typing import IO

from tasks.text import one_line

_CLEAR = "\r\x1b[J"  # to the end of the screen


class Screen:
    """The output of a run; its lines, live lines and bars do not tear each other.

    `out` takes the lines of `say`, `err` the bars; None: standard output and error, as they are at
    that moment. Safe to use from several threads.
    """

    def __init__(self, out: IO[str] | None = None, err: IO[str] | None = None) -> None:
        self._out, self._err = out, err
        self._lock = threading.RLock()
        self._live: IO[str] | None = None  # the stream that shows live lines
        self._lines: Sequence[str] = ()  # as they are shown
        self._bars = 0  # bars that move by themselves; live lines would tear them

    @property
    def out(self) -> IO[str]:
        return self._out or sys.stdout

    @property
    def err(self) -> IO[str]:
        return self._err or sys.stderr

    def write(self, stream: IO[str], text: str) -> None:
        """Write at once, above the live lines; go on in silence where the reader is gone.

        Work that was done must not be lost because its report could not be printed.
        """
        with self._lock:
            live, lines = self._live, self._lines
            if live is None:
                # the process that started this one may show a live line of its own
                foreign = parent_process() is not None and stream.isatty()
                _write(stream, _CLEAR + text if foreign else text)
                return
            clear, again = self._clear(), "\n".join(lines) if text.endswith("\n") else ""
            if live is stream:
                _write(stream, clear + text + again)
            else:
                _write(live, clear)
                _write(stream, text)
                _write(live, again)
            if again:
                self._live, self._lines = live, lines

    def live(self, stream: IO[str], *lines: str) -> None:
        """Show lines below all others, in place of the earlier ones; only for a terminal.

        Where it is too low for all of them, it gets the first ones and the last one.
        """
        with self._lock:
            if self._bars:
                return
            columns, rows = shutil.get_terminal_size()
            if len(lines) >= rows:
                lines = (*lines[: max(0, rows - 2)], lines[-1])
            fitting = [_fit(line, columns - 1) for line in lines]
            _write(stream, (self._clear() or _CLEAR) + "\n".join(fitting))
            self._live, self._lines = stream, fitting

    def remove_live_lines(self) -> None:
        """Remove the live lines, if there are any."""
        with self._lock:
            if self._live is not None:
                _write(self._live, self._clear())

    def _clear(self) -> str:
        """Forget the live lines; returns what removes them from their stream."""
        if self._live is None:
            return ""
        above = len(self._lines) - 1
        self._live, self._lines = None, ()
        return (f"\x1b[{above}A" if above > 0 else "") + _CLEAR

    @contextlib.contextmanager
    def pause_live_lines(self) -> Iterator[None]:
        """Keep the live lines away during the block, which shows a bar on `err`."""
        with self._lock:
            self.remove_live_lines()
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


def live(stream: IO[str], *lines: str) -> None:
    """Show live lines on the current screen: see Screen.live."""
    current().live(stream, *lines)


def remove_live_lines() -> None:
    """Remove the live lines of the current screen."""
    current().remove_live_lines()


def flush() -> None:
    """Remove live lines, and write what is left in the buffers, at the end of the program.

    What no reader is there for is dropped; Python itself would end with 120 then.
    """
    remove_live_lines()
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


def _fit(line: str, columns: int) -> str:
    """The start of a line that takes at most so many columns; some characters take two."""
    width = 0
    for position, character in enumerate(line := one_line(line)):
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > columns:
            return line[:position]
    return line


def _write(stream: IO[str], text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, stream.fileno())  # also for what is flushed at the very end
            os.close(silence)
