"""A doit command that works on the site, without doit's database and without running tasks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import ClassVar, NoReturn

from doit.cmd_base import DoitCmdBase
from doit.exceptions import InvalidCommand

from tasks.errors import describe, failure
from tasks.site import Site
from tasks.system.terminal import say


class Parser(argparse.ArgumentParser):
    """Parses the arguments of a command; an error becomes one line and exit code 3."""

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        raise InvalidCommand(f"{self.prog}: {message}\n  next: {usage}")


class SiteCommand(DoitCmdBase):  # type: ignore[misc]
    """`doit NAME ...`: subclasses declare the arguments, and run the command.

    The exit code is 0, or the result of `run`; 1 for an error that a user can act on, 3 for
    invalid arguments.
    """

    doc_purpose = ""
    doc_usage = ""
    doc_description: ClassVar[str | None] = None
    execute_tasks = False
    cmd_options = ()

    def add_arguments(self, parser: Parser) -> None:
        """Declare the command's arguments and options."""

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments, as `run` gets them."""
        return self.parser().parse_args(list(words))

    def run(self, site: Site, arguments: argparse.Namespace) -> int | None:
        """Run the command."""
        raise NotImplementedError

    def parser(self) -> Parser:
        """The parser of its arguments."""
        parser = Parser(
            prog=f"doit {self.get_name()}",
            description=self.doc_purpose,
            epilog=self.doc_description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_arguments(parser)
        return parser

    def help(self) -> str:
        """The text of `doit help NAME`."""
        return self.parser().format_help()

    def parse_execute(self, in_args: list[str]) -> int:
        """Called by doit with the arguments after the command's name."""
        words = self.read(as_typed(self.get_name(), in_args, sys.argv))
        defaults, _ = self.cmdparser.parse([])
        self.loader.setup(defaults)
        site = self.loader.namespace["SITE"]
        codes: list[int | None] = []
        error = failure(lambda: codes.append(self.run(site, words)), self.get_name())
        if error is not None:
            say(f"{self.get_name()}: FAILED: {describe(error)}")
            return 1
        return codes[0] or 0


def as_typed(name: str, words: list[str], argv: Sequence[str]) -> list[str]:
    """The arguments after a command's name as typed: doit consumes those like A=b."""
    after = list(argv[argv.index(name) + 1 :]) if name in argv else []
    left = [word for word in after if word.startswith("-") or "=" not in word]
    return after if left == words else words
