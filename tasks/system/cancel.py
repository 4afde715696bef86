"""Cancelling work in other threads: signals reach the main thread alone.

A thread works in a scope (`working_in`). When that is cancelled, the programs that were started in
it end (system.command), nothing new starts, and its threads get Cancelled at their next step.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_GRACE_SECONDS = 5.0
End = Callable[[int], None]  # sends a signal to something that runs


class Cancelled(BaseException):
    """Work was cancelled: like KeyboardInterrupt, it passes all handlers of errors."""


class Scope:
    """Work in any number of threads that is cancelled together."""

    def __init__(self) -> None:
        self.cancelled = False
        self._ends: dict[object, End] = {}
        self._changed = threading.Condition()

    def cancel(self, grace: float = _GRACE_SECONDS) -> None:
        """End what runs: TERM, `grace` seconds, KILL. Safe to call twice."""
        with self._changed:
            self.cancelled = True
            if grace > 0:
                self._send(signal.SIGTERM)
                self._changed.wait_for(lambda: not self._ends, grace)
            self._send(signal.SIGKILL)

    def check(self) -> None:
        """Raise Cancelled if this was cancelled."""
        if self.cancelled:
            raise Cancelled

    @contextlib.contextmanager
    def registered(self, end: End) -> Iterator[None]:
        """Let the scope end something while the block runs; raises Cancelled, also at its end."""
        key = object()
        with self._changed:
            self.check()
            self._ends[key] = end
        try:
            yield
        finally:
            with self._changed:
                del self._ends[key]
                self._changed.notify_all()
            self.check()

    def _send(self, number: int) -> None:
        for end in list(self._ends.values()):
            end(number)


_SCOPE: ContextVar[Scope | None] = ContextVar("cancel_scope", default=None)


@contextlib.contextmanager
def working_in(scope: Scope) -> Iterator[None]:
    """Do the work of the block, in this context, in a scope."""
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)


def check() -> None:
    """Raise Cancelled if the work of this context was cancelled; for loops without programs."""
    scope = _SCOPE.get()
    if scope is not None:
        scope.check()


@contextlib.contextmanager
def ended_with_scope(end: End) -> Iterator[None]:
    """Let the scope of this context, if there is one, end something; see Scope.registered."""
    scope = _SCOPE.get()
    if scope is None:
        yield
    else:
        with scope.registered(end):
            yield
