"""A benchmark of one row on a small image; after the row it waits until a signal ends it.

    python -m tests.programs.small_bench WORK

It prints "ready" when the image is mounted, a child works there, and the row was printed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.isolation import end_on_term, run_isolated, scratch
from bench.measure import Table, row, scratch_filesystem

MODULE = "tests.programs.small_bench"


def main(work: Path) -> None:
    """Run inside the namespaces."""
    end_on_term()
    table = Table("small")
    with scratch_filesystem(0.125, scratch(work)) as place:
        child = subprocess.Popen(["sh", "-c", "sleep 600; true"], cwd=place)
        table.add(row("a row", [1.0, 3.0, 2.0], [4.0]))
        print("ready", flush=True)
        child.wait()


if __name__ == "__main__":
    work = Path(sys.argv[1])
    if "--isolated" in sys.argv:
        main(work)
    else:
        sys.exit(run_isolated([sys.executable, "-m", MODULE, work, "--isolated"], work))
