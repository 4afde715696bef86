"""A clock that a test sets."""

from __future__ import annotations

from contextlib import ExitStack

from tasks import clock


class SetClock:
    """The time of day (tasks.clock), from a test's first `set` until its end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def set(self, moment: float) -> None:
        """Set the clock, in seconds since the epoch."""
        self._stack.enter_context(clock.stopped_at(moment))
