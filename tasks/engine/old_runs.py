"""Old runs are deleted when a run ends, however it ends."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress

from tasks.errors import BinmillError
from tasks.layout import Layout


def prune_logs_at_exit(layout: Layout, keep_days: int, keep_mb: int) -> None:
    """Delete old runs when this process, which has made one, ends."""
    owner = os.getpid()

    def delete_old() -> None:
        if os.getpid() == owner and layout.run and layout.run_logs.is_dir():
            from tasks import clock, journal

            with suppress(OSError, BinmillError):  # the next run tries again
                journal.prune(layout, keep_days, keep_mb, now=clock.now())

    atexit.register(delete_old)
