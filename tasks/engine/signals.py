"""Signals: TERM and HUP end a run as Ctrl-C does, so that every `finally` is reached.

Programs that run are stopped by the blocks that started them (system.command), sandboxes with
them; a SIGKILL that leaves no time for that is answered by parent-death signals.
"""

from __future__ import annotations

import signal
from types import FrameType


def end_cleanly() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
