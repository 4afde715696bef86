"""doit of which one process gets a signal while it puts something into a queue.

python -m tests.programs.interrupt_put run|worker SIGNAL NTH WORDS
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing import queues
from typing import Any

from doit.doit_cmd import DoitMain

RUN = os.getpid()


class InterruptedLock:
    """A lock of a queue; a process gets a signal just after its main thread took it."""

    def __init__(self, lock: Any, who: str, number: int, nth: int) -> None:
        self.lock, self.who, self.number, self.left = lock, who, number, nth

    def __enter__(self) -> bool:
        entered: bool = self.lock.__enter__()
        process = "run" if os.getpid() == RUN else "worker"
        if process == self.who and threading.current_thread() is threading.main_thread():
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.number)
        return entered

    def __getattr__(self, name: str) -> object:
        return getattr(self.lock, name)

    def __exit__(self, *error: object) -> None:
        self.lock.__exit__(*error)


def interrupt_puts(who: str, number: int, nth: int) -> None:
    """Signal the run, or each worker, in its nth put into a queue of multiprocessing."""
    reset = queues.Queue._reset  # type: ignore[attr-defined]

    def changed(queue: Any, after_fork: bool = False) -> None:
        reset(queue, after_fork)
        if not after_fork:
            queue._notempty._lock = InterruptedLock(queue._notempty._lock, who, number, nth)

    queues.Queue._reset = changed  # type: ignore[attr-defined]


if __name__ == "__main__":
    interrupt_puts(sys.argv[1], signal.Signals(int(sys.argv[2])), int(sys.argv[3]))
    sys.exit(DoitMain().run(sys.argv[4:]))
