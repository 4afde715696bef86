"""python -m bench [NAME...]: run benchmarks, print their tables, keep them in bench/results/."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import chroots, publish, seeds, snapshots, startup

ALL: dict[str, Callable[[], None]] = {
    "chroots": chroots.main,
    "publish": publish.main,
    "seeds": seeds.main,
    "snapshots": snapshots.main,
    "startup": startup.main,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        ALL[name]()
