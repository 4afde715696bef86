"""A time limit for waiting on sockets, in any thread.

The time limits of sockets are for each read: a server that sends one byte a minute never exceeds
them. A deadline ends the connection instead, from a thread of its own.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

_LOOK_SECONDS = 1.0  # at most; a deadline that was moved forward is noticed after that
_NEVER = float("inf")


class DeadlinePassed(TimeoutError):
    """A block took longer than its deadline allowed."""


class Deadline:
    """Shuts watched sockets down when it passes, so that nothing waits on them any longer.

    A look-up of a name is not ended: it happens inside the C library, which has time limits of
    its own (resolv.conf(5)).
    """

    def __init__(self) -> None:
        self.passed = False
        self._moment = _NEVER
        self._left = threading.Event()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Deadline:
        threading.Thread(target=self._wait, name="deadline", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        with self._lock:
            for each in self._sockets:
                each.close()
            self._sockets.clear()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raise DeadlinePassed when the block takes longer, whatever it has raised itself."""
        self._moment = time.monotonic() + seconds
        try:
            yield
        except Exception as error:
            if self.passed:
                raise DeadlinePassed from error
            raise
        finally:
            self._moment = _NEVER
        if self.passed:  # the end of a connection may have looked like the end of the data
            raise DeadlinePassed

    def watch(self, connection: socket.socket) -> None:
        """Shut this connection, too, when the deadline passes."""
        # A descriptor of its own: TLS takes the original away from its socket object, and the
        # number of a closed one may be another file's by then.
        own = connection.dup()
        with self._lock:
            self._sockets.append(own)
            if self.passed:
                _shut(own)

    def _wait(self) -> None:
        while not self._left.wait(min(self._moment - time.monotonic(), _LOOK_SECONDS)):
            if time.monotonic() < self._moment:
                continue
            with self._lock:
                self.passed = True
                for each in self._sockets:
                    _shut(each)
            return


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side may have closed it
        connection.shutdown(socket.SHUT_RDWR)
