"""Reading what another program writes, without a wake-up for each of its writes."""

from __future__ import annotations

import array
import contextlib
import fcntl
import io
import os
import queue
import termios
import threading
import time
from typing import Any, BinaryIO

from tasks.system.command import widen

_READ_BYTES = 1 << 20
_PIPE_BYTES = 16 << 20  # or what may be had of it (pipe(7), /proc/sys/fs/pipe-max-size)
_NAP_SECONDS = 0.001
_AHEAD = 64  # reads: of a writer that is quicker than its reader, most are of _READ_BYTES


def patient(pipe: BinaryIO) -> BinaryIO:
    """A pipe's reading end as a stream that gives as many bytes as are asked for, until it ends."""
    return io.BufferedReader(_Patient(pipe), _READ_BYTES)


class _Patient(io.RawIOBase):
    """A pipe that is read when there is much in it."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._descriptor = pipe.fileno()
        widen(pipe, _PIPE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        _nap(self._descriptor)
        return os.readv(self._descriptor, [buffer])


class Ahead:
    """A pipe that a thread reads into memory: its writer goes on while the reader is busy.

    A pipe itself holds 1 MiB on most hosts, which xz unpacks in some ten milliseconds.
    """

    def __init__(self, pipe: BinaryIO) -> None:
        widen(pipe)
        # one of the thread's own: it ends when the writer ends, and disturbs no other thread
        self._descriptor = os.dup(pipe.fileno())
        self._chunks: queue.Queue[bytes] = queue.Queue(_AHEAD)
        self._chunk = b""
        self._left = self._ended = False

    def __enter__(self) -> Ahead:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def read(self, count: int) -> bytes:
        """The next bytes, `count` or fewer; none at the end."""
        if not self._chunk and not self._ended:
            self._chunk = self._chunks.get()
            self._ended = not self._chunk
        found, self._chunk = self._chunk[:count], self._chunk[count:]
        return found

    def __exit__(self, *_: object) -> None:
        self._left = True
        with contextlib.suppress(queue.Empty):
            while True:  # the thread may wait for room
                self._chunks.get_nowait()

    def _run(self) -> None:
        try:
            while not self._left and (chunk := self._more()):
                self._chunks.put(chunk)
        finally:
            os.close(self._descriptor)
            self._chunks.put(b"")

    def _more(self) -> bytes:
        _nap(self._descriptor)
        return os.read(self._descriptor, _READ_BYTES)


def _nap(descriptor: int) -> None:
    """Let some more come together in a pipe that has little in it.

    xz writes 8 kB at a time; a reader that wakes up for each of them slows both down.
    """
    waiting = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    if waiting[0] < _READ_BYTES // 4:
        time.sleep(_NAP_SECONDS)
