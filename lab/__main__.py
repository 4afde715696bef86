"""python -m lab: build the lab, serve its mirror, let a day pass."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from lab import builder, demo, mirror, site, upstream
from tasks.errors import BinmillError


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command; the exit status."""
    wanted = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        if wanted.command == "build":
            lab = builder.build_lab(wanted.dir)
            print(f"the lab is in {lab.upstream}")
        elif wanted.command == "next-day":
            moved = upstream.next_day(wanted.dir)
            print("\n".join(moved) or "the next day is published already")
        elif wanted.command == "serve":
            mirror.serve(wanted.dir, wanted.port)
        elif wanted.command == "demo":
            return demo.run(wanted.dir, wanted.port, wanted.tasks)
        elif wanted.command == "clean":
            builder.delete_lab(wanted.dir)
        elif wanted.command == "config":
            print(site.write_config(wanted.dir, wanted.port, wanted.site))
    except BinmillError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--dir",
        type=Path,
        default=upstream.default_directory(),
        help="where the lab is (default: %(default)s)",
    )
    port = argparse.ArgumentParser(add_help=False)
    port.add_argument(
        "--port", type=int, default=demo.PORT, help="on 127.0.0.1 (default: %(default)s)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", parents=[common], help="make the lab, or finish it")
    commands.add_parser("next-day", parents=[common], help="publish the next snapshot")
    commands.add_parser("serve", parents=[common, port], help="run the mirror")
    job = commands.add_parser("demo", parents=[common, port], help="run the main job on the lab")
    job.add_argument("tasks", nargs="*", help="tasks for doit (default: the whole job)")
    commands.add_parser("clean", parents=[common], help="delete the lab and its site")
    config = commands.add_parser("config", parents=[common, port], help="write a config.toml")
    config.add_argument("--site", type=Path, required=True, help="directory of the factory")
    return parser


if __name__ == "__main__":
    sys.exit(main())
