"""python -m lab: build the lab, serve its mirror, publish its next day."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from lab import builder, demo, mirror, site, upstream
from tasks.errors import BinmillError


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command and return the exit status."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        if options.command == "build":
            print(f"the lab is in {builder.build_lab(options.dir).upstream}")
        elif options.command == "next-day":
            names = upstream.publish_next_day(options.dir)
            print("\n".join(names) or "the next day is already published")
        elif options.command == "serve":
            mirror.serve(options.dir, options.port)
        elif options.command == "demo":
            return demo.run(options.dir, options.port, options.arguments)
        elif options.command == "clean":
            builder.delete_lab(options.dir)
        elif options.command == "config":
            print(site.write_config(options.dir, options.port, options.site))
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
        help="directory of the lab (default: %(default)s)",
    )
    port = argparse.ArgumentParser(add_help=False)
    port.add_argument(
        "--port",
        type=int,
        default=demo.PORT,
        help="port of its mirror on 127.0.0.1 (default: %(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "build", parents=[common], help="build the lab, or finish a build that was interrupted"
    )
    commands.add_parser("next-day", parents=[common], help="publish the snapshot of the second day")
    commands.add_parser("serve", parents=[common, port], help="serve the mirror until Ctrl-C")
    job = commands.add_parser(
        "demo", parents=[common, port], help="build the lab and run doit on its site"
    )
    job.add_argument(
        "arguments",
        nargs="*",
        help="arguments for doit (default: none, which runs all default tasks)",
    )
    commands.add_parser("clean", parents=[common], help="delete the lab and its site")
    config = commands.add_parser(
        "config", parents=[common, port], help="write a config.toml for the lab"
    )
    config.add_argument("--site", type=Path, required=True, help="directory of the site")
    return parser


if __name__ == "__main__":
    sys.exit(main())
