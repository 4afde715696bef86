"""python -m bench [--quick] [NAME...]: run benchmarks, print and save their tables.

Results go to bench/results/, those of --quick to bench/work/quick/.
"""

from __future__ import annotations

import argparse
import sys

from bench import (
    builds,
    chroots,
    plans,
    proofs,
    publish,
    schedule,
    seeds,
    snapshots,
    startup,
)
from bench.isolation import WORK, end_on_term, run_isolated
from bench.measure import RESULTS, Bench, Table
from tasks.errors import BinmillError
from tasks.system.command import require_root

BENCHES: dict[str, Bench] = {
    "builds": builds.BENCH,
    "chroots": chroots.BENCH,
    "plans": plans.BENCH,
    "proofs": proofs.BENCH,
    "publish": publish.BENCH,
    "schedule": schedule.BENCH,
    "seeds": seeds.BENCH,
    "snapshots": snapshots.BENCH,
    "startup": startup.BENCH,
}
_ISOLATED = "--isolated"


def main(words: list[str]) -> int:
    """Run the benchmarks in a process of their own, in which this program starts again."""
    options = _parser().parse_args(words)
    if options.isolated:
        end_on_term()
        run(options.names or list(BENCHES), quick=options.quick)
        return 0
    try:
        require_root("run benchmarks: they mount file systems and enter chroots")
        return run_isolated([sys.executable, "-m", "bench", _ISOLATED, *words])
    except BinmillError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def run(names: list[str], *, quick: bool) -> None:
    """Run benchmarks one after the other."""
    for name in names:
        bench = BENCHES[name]
        size = bench.quick if quick else bench.full
        bench.run(Table(name, WORK / "quick" if quick else RESULTS), size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs and smaller data")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument(_ISOLATED, action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
