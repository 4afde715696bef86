"""Processes that write, lock and delete files at the same time as others.

python -m tests.programs.file_operations CASE ARGUMENTS...
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tasks.system.files import locked, remove_tree, write_atomic


def write_forever(target: str) -> None:
    """Write a small and a large file by turns."""
    print("ready", flush=True)
    while True:
        for size in (1000, 2_000_000):
            write_atomic(Path(target), b"x" * size)


def hold_lock(lock: str) -> None:
    """Hold a lock until stdin ends."""
    with locked(Path(lock), "x"):
        print("held", flush=True)
        sys.stdin.read()


def delete_trees(site: str, name: str) -> None:
    """Make and delete a tree, again and again."""
    tree = Path(site) / name
    for _ in range(15):
        for part in range(40):
            (tree / str(part) / "x").mkdir(parents=True)
        remove_tree(tree, Path(site) / "trash")


CASES: dict[str, Callable[..., None]] = {
    case.__name__: case for case in (write_forever, hold_lock, delete_trees)
}

if __name__ == "__main__":
    CASES[sys.argv[1]](*sys.argv[2:])
