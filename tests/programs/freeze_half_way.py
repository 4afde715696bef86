"""Freezes a snapshot, but stops half way until it reads a line.

python -m tests.programs.freeze_half_way REPOSITORY ARCHIVE
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import BinaryIO
from unittest import mock

from tasks.snapshot import freeze
from tasks.snapshot.archive import TreeFile, tree_files
from tests.kit.snapshots import verified_tarball


@contextlib.contextmanager
def slow_tree_files(archive: BinaryIO, name: str) -> Iterator[Iterator[TreeFile]]:
    with tree_files(archive, name) as files:
        yield half_way(files)


def half_way(files: Iterator[TreeFile]) -> Iterator[TreeFile]:
    for number, member in enumerate(files):
        yield member
        if number == 150:
            print("half way", flush=True)
            sys.stdin.readline()


if __name__ == "__main__":
    patch = mock.patch.object(freeze, "tree_files", slow_tree_files)
    with patch, verified_tarball(Path(sys.argv[2])) as tarball:
        freeze.freeze_archive(Path(sys.argv[1]), tarball, date(2026, 1, 15), "gentoo")
