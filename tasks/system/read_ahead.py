"""Reading the output of a program without a wake-up for each of its writes."""

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
_PIPE_BYTES = 16 << 20  # or as much as is allowed (pipe(7), /proc/sys/fs/pipe-max-size)
_NAP_SECONDS = 0.001
_AHEAD = 64  # reads: with a writer that is faster than its reader, most are of _READ_BYTES


def patient_reader(pipe: BinaryIO) -> BinaryIO:
    """Wrap the reading end of a pipe: `read` returns as many bytes as requested, until the end."""
    return io.BufferedReader(_Patient(pipe), _READ_BYTES)


class _Patient(io.RawIOBase):
    """A pipe that is read when it holds much."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._descriptor = pipe.fileno()
        widen(pipe, _PIPE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        _nap(self._descriptor)
        return os.readv(self._descriptor, [buffer])


class ReadAhead:
    """A pipe that a thread reads into memory, so that its writer continues while the reader works.

    A pipe itself holds 1 MiB on most hosts, which xz unpacks in some ten milliseconds.
    """

    def __init__(self, pipe: BinaryIO) -> None:
        widen(pipe)
        # one of the thread's own: it ends when the writer ends, and disturbs no other thread
        self._descriptor = os.dup(pipe.fileno())
        self._chunks: queue.Queue[bytes] = queue.Queue(_AHEAD)
        self._chunk = b""
        self._left = self._ended = False

    def __enter__(self) -> ReadAhead:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def read(self, count: int) -> bytes:
        """Return the next bytes, `count` or fewer; none at the end."""
        if not self._chunk and not self._ended:
            self._chunk = self._chunks.get()
            self._ended = not self._chunk
        head, self._chunk = self._chunk[:count], self._chunk[count:]
        return head

    def __exit__(self, *_: object) -> None:
        self._left = True
        with contextlib.suppress(queue.Empty):
            while True:  # the thread may wait for space in the queue
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
    """Let more data arrive in a pipe that holds little.

    xz writes 8 kB at a time; a reader that wakes up for each of them slows both down.
    """
    waiting = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    if waiting[0] < _READ_BYTES // 4:
        time.sleep(_NAP_SECONDS)
