"""python -m bench [NAME...]: run benchmarks, print their tables, keep them in bench/results/."""

from __future__ import annotations

import sys

from bench import rooms, snapshots, startup

ALL = {"rooms": rooms.main, "snapshots": snapshots.main, "startup": startup.main}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        ALL[name]()
