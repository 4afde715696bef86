"""Reading what another program writes, without a wake-up for each of its writes."""

from __future__ import annotations

import array
import fcntl
import io
import os
import termios
import time
from typing import Any, BinaryIO

from tasks.system.command import widen

_READ_BYTES = 1 << 20
_PIPE_BYTES = 16 << 20  # the writer goes on while the reader is busy
_NAP_SECONDS = 0.001


def patient(pipe: BinaryIO) -> BinaryIO:
    """A pipe's reading end as a stream that gives as many bytes as are asked for, until it ends."""
    return io.BufferedReader(_Patient(pipe), _READ_BYTES)


class _Patient(io.RawIOBase):
    """A pipe that is read when there is much in it.

    xz writes 8 kB at a time; a reader that wakes up for each of them slows both down.
    """

    def __init__(self, pipe: BinaryIO) -> None:
        self._descriptor = pipe.fileno()
        self._waiting = array.array("i", [0])
        widen(pipe, _PIPE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        fcntl.ioctl(self._descriptor, termios.FIONREAD, self._waiting)
        if self._waiting[0] < _READ_BYTES // 4:
            time.sleep(_NAP_SECONDS)
        return os.readv(self._descriptor, [buffer])
