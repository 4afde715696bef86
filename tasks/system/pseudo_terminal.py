"""A terminal of its own for a command, relayed to the caller's terminal (pty(7))."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import termios
import tty
from collections.abc import Iterator
from types import FrameType, TracebackType


@contextlib.contextmanager
def _hang_up() -> Iterator[None]:
    """End as by SIGHUP where the caller's terminal turns out to be gone."""
    try:
        yield
    except OSError:
        raise SystemExit(128 + signal.SIGHUP) from None


class PseudoTerminal:
    """A terminal for a command in a session of its own; for the main thread, by its signals.

    `inside` is the end for the command; `relay` copies until the command has closed it.
    """

    def __enter__(self) -> PseudoTerminal:
        self._outside, self.inside = pty.openpty()
        self._mode = termios.tcgetattr(0)
        self._resize(0, None)
        self._on_resize = signal.signal(signal.SIGWINCH, self._resize)
        tty.setraw(0)
        return self

    def relay(self) -> None:
        """Copy keys in and text out until no process holds the inner end any more.

        Ends as by SIGHUP when the caller's own terminal is gone: that signal goes to the leader of
        the session, and others get EIO.
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
