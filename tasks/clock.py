"""The time of day, from one place, so that a test can set it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_set_to: ContextVar[float | None] = ContextVar("clock", default=None)


def now() -> float:
    """Seconds since the epoch."""
    moment = _set_to.get()
    return time.time() if moment is None else moment


def today() -> datetime:
    """The same moment as a date with its time, in UTC."""
    return datetime.fromtimestamp(now(), UTC)


@contextmanager
def stopped_at(moment: float) -> Iterator[None]:
    """Let the clock show one moment (epoch seconds) in this context."""
    token = _set_to.set(moment)
    try:
        yield
    finally:
        _set_to.reset(token)
