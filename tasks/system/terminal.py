"""What a person sees while something runs: a bar on a terminal, nothing in a log."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import IO, Any

_SMALL = 1 << 20  # bytes
_LONG_SECONDS = 10.0


def say(text: str) -> None:
    """One line for the person who runs doit, at once."""
    write(sys.stdout, text + "\n")


def write(stream: IO[str], text: str) -> None:
    """Write at once; when nobody reads any more (a closed pipe or terminal), go on in silence.

    Work that was done must not be lost because its report could not be printed.
    """
    with _screen:
        _write(stream, (_CLEAR if _line_of(None) is stream else "") + text)


def live(stream: IO[str], text: str) -> None:
    """Show one line that the next one, and the next `write`, takes away again; terminals only."""
    with _screen:
        if not _bars:
            columns = shutil.get_terminal_size().columns
            _write(stream, _CLEAR + text[: columns - 1])
            _line_of(stream)


_CLEAR = "\r\x1b[K"
_screen = threading.RLock()
_shown: list[IO[str]] = []  # where a live line stands
_bars: list[Any] = []  # bars that move by themselves; a live line would tear them


def _line_of(stream: IO[str] | None) -> IO[str] | None:
    """The stream that had a live line; from now on it is `stream`."""
    before = _shown.pop() if _shown else None
    if stream is not None:
        _shown.append(stream)
    return before


def _write(stream: IO[str], text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, stream.fileno())  # also for what is flushed at the very end
            os.close(silence)


class Progress:
    """A bar with rate and time left for `total` bytes (None: unknown), on a terminal only.

    The first `done` of them were there before. Where there is no terminal, what was large and
    took long is told in one line at its end.
    """

    def __init__(self, title: str, total: int | None, done: int = 0) -> None:
        self._title, self._total, self._done = title, total, done
        self._count = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        if sys.stderr.isatty() and (self._total is None or self._total > _SMALL):
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._bar = Progress(
                TextColumn("  {task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            with _screen:
                if before := _line_of(None):
                    _write(before, _CLEAR)
                _bars.append(self)
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done)
        return self

    def advance(self, count: int) -> None:
        self._count += count
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = time.monotonic() - self._start
        if self._bar is not None:
            self._bar.stop()
            _bars.remove(self)
        elif kind is None and self._count > _SMALL and seconds > _LONG_SECONDS:
            say(f"  {self._count / 1e6:.1f} MB of {self._title} in {seconds:.0f} s")


@contextlib.contextmanager
def _hang_up() -> Iterator[None]:
    """End as by SIGHUP where the caller's terminal turns out to be gone."""
    try:
        yield
    except OSError:
        raise SystemExit(128 + signal.SIGHUP) from None


class PseudoTerminal:
    """A terminal for a command of its own session, relayed to the caller's (pty(7)).

    `inside` is the end to give to the command; `relay` copies until the command has closed it.
    """

    def __enter__(self) -> PseudoTerminal:
        self._outside, self.inside = pty.openpty()
        self._mode = termios.tcgetattr(0)
        self._resize(0, None)
        self._on_resize = signal.signal(signal.SIGWINCH, self._resize)
        tty.setraw(0)
        return self

    def relay(self) -> None:
        """Copy keys in and text out until nothing holds the inner end any more.

        Ends as SIGHUP would when the caller's own terminal is gone: who may not get that signal
        (it goes to the session's leader) meets EIO.
        """
        os.close(self.inside)
        self.inside = -1
        while True:
            ready = select.select([0, self._outside], [], [])[0]
            if self._outside in ready:
                try:
                    text = os.read(self._outside, 1 << 16)
                except OSError:  # EIO: the last process inside has closed it
                    return
                if not text:
                    return
                with _hang_up():
                    os.write(1, text)
            if 0 in ready:
                with _hang_up():
                    keys = os.read(0, 1 << 12)
                    if not keys:  # no key ends the input of a terminal in raw mode
                        raise OSError
                os.write(self._outside, keys)

    def _resize(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # nor a size
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self._outside, termios.TIOCSWINSZ, size)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(termios.error):  # a terminal that is gone needs no mode
            termios.tcsetattr(0, termios.TCSAFLUSH, self._mode)
        signal.signal(signal.SIGWINCH, self._on_resize)
        for descriptor in (self.inside, self._outside):
            if descriptor >= 0:
                os.close(descriptor)
