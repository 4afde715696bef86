"""The progress of something long: a bar on a terminal, one line at the end in a log."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Any

from tasks.system.notes import note
from tasks.system.terminal import current

_SMALL = 1 << 20  # bytes
_LONG_SECONDS = 10.0


class Progress:
    """A bar with rate and time left for `total` bytes (None: unknown), on a terminal only.

    The first `done` of them were there before. Where there is no terminal, a note at the end
    reports what was large and took long.
    """

    def __init__(self, title: str, total: int | None, done: int = 0) -> None:
        self._title, self._total, self._done = title, total, done
        self._count = 0
        self._bar: Any = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Progress:
        self._start = time.monotonic()
        screen = current()
        if screen.err.isatty() and (self._total is None or self._total > _SMALL):
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._stack.enter_context(screen.pause_live_lines())
            self._bar = self._stack.enter_context(
                Progress(
                    TextColumn("  {task.description}"),
                    BarColumn(),
                    DownloadColumn(),
                    TransferSpeedColumn(),
                    TimeRemainingColumn(),
                    console=Console(file=screen.err),
                    transient=True,
                )
            )
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done)
        return self

    def advance(self, count: int) -> None:
        """Count bytes that were handled."""
        self._count += count
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        seconds = time.monotonic() - self._start
        took_long = self._count > _SMALL and seconds > _LONG_SECONDS
        if self._bar is None and kind is None and took_long:
            note("bytes-handled", size=self._count, title=self._title, seconds=seconds)
