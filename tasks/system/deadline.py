"""A time limit for a call that waits: what time limits of sockets do not bound.

Those are for each read. A server that sends one byte a minute never runs into them.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

# What the alarm raises may be lost: in a __del__, or where the next address of a name is tried.
_AGAIN_SECONDS = 1.0


def within(seconds: float, act: Callable[[], Result], late: Exception) -> Result:
    """What `act` returns; raises `late` when it is not done after `seconds`.

    Only in the main thread, since that is where Python runs signal handlers; elsewhere there is
    no limit. Nor does it end a call that is inside the C library, as a look-up of a name may be:
    that has time limits of its own (resolv.conf(5)). Handler and timer are put back.
    """
    if threading.current_thread() is not threading.main_thread():
        return act()
    rang = False

    def ring(*_: object) -> None:
        nonlocal rang
        rang = True
        raise TimeoutError  # as a socket would: libraries close what they have opened

    began = time.monotonic()
    delay, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        return _timed(seconds, act)
    except Exception as error:
        if rang:
            raise late from error
        raise
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if delay:
            left = max(delay - (time.monotonic() - began), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def _timed(seconds: float, act: Callable[[], Result]) -> Result:
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
        return act()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
