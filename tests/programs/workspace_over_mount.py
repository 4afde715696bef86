"""Enters a workspace in which a folder is mounted, then again after it was unmounted.

python -m tests.programs.workspace_over_mount PRECIOUS STALE, in a mount namespace of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tasks.errors import BinmillError
from tasks.system.sandbox import workspace


def main(precious: Path, stale: Path) -> None:
    """Print the error of the first time, and the folders that are left each time."""
    work = stale.parents[1]

    def enter() -> None:
        with workspace(work.parent, "box", work.parent.parent / "trash"):
            pass

    subprocess.run(["mount", "--bind", precious, stale], check=True)
    try:
        enter()
    except BinmillError as error:
        print(error)
    print((precious / "precious").exists(), stale.exists())
    subprocess.run(["umount", stale], check=True)
    enter()
    print((precious / "precious").exists(), work.exists())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
