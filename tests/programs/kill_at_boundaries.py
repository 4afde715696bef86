"""Run doit and kill it at the next boundary of a record where it has not been killed before.

    python -m tests.programs.kill_at_boundaries PASSED WORDS...

The boundaries of a task: its work is done without a record; its record is written, but doit does
not remember it; doit remembers it. PASSED is a file of the boundaries so far, one per line.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from tasks import lock as lock_file
from tasks import records
from tasks.engine.backend import DurableBackend
from tasks.layout import Layout

POINTS = ("made", "written", "remembered")


def main(passed: Path, words: list[str]) -> int:
    """Run doit; returns its exit code if it was not killed."""
    from doit.doit_cmd import DoitMain

    passed.touch()
    boundaries = set(passed.read_text().splitlines())
    write, pin, keep = records.save, lock_file.write, DurableBackend.set

    def kill_at(task: str, point: str) -> None:
        if f"{task} {point}" not in boundaries:
            with passed.open("a") as stream:
                stream.write(f"{task} {point}\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.kill(os.getpid(), signal.SIGKILL)

    def killing_write(layout: Layout, key: records.Key[Any], record: Any) -> None:
        kill_at(key.task, "made")
        write(layout, key, record)
        kill_at(key.task, "written")

    def killing_set(self: DurableBackend, task_id: str, dependency: str, value: Any) -> None:
        keep(self, task_id, dependency, value)
        if dependency == "deps:":  # the last one of a task, which is committed with it
            kill_at(task_id, "remembered")

    def killing_lock(layout: Layout, lock: lock_file.Lock) -> None:  # it is a record, too
        kill_at("lock", "made")
        pin(layout, lock)
        kill_at("lock", "written")

    sys.argv = ["doit", *words]
    with (
        mock.patch.object(records, "save", killing_write),
        mock.patch.object(lock_file, "write", killing_lock),
        mock.patch.object(DurableBackend, "set", killing_set),
    ):
        return int(DoitMain().run(words))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
