"""rollback, promote, generations, diff: commands about published generations."""

from __future__ import annotations

import argparse
import json

from tasks.commands.site_command import Parser, SiteCommand
from tasks.site import Site
from tasks.system.terminal import say
from tasks.text import count


class Rollback(SiteCommand):
    """doit rollback NAME [--to N]."""

    name = "rollback"
    doc_purpose = "publish an earlier generation's packages again"
    doc_description = (
        "The packages come back as a new generation, because clients ignore an index that is\n"
        "older than theirs. It is held until the set changes or you run `doit publish:NAME`."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("name", metavar="NAME", help="the chroot")
        parser.add_argument(
            "--to", metavar="N", default="", help="the generation (default: the one before)"
        )

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.flow import releases

        chroot = site.chroot(arguments.name)
        new, earlier = releases.roll_back(chroot, arguments.to)
        say(
            f"{chroot.name}: generation {new} is current, with the packages of generation "
            f"{earlier}; it is held until the set changes or you run `doit publish:{chroot.name}`"
        )


class Promote(SiteCommand):
    """doit promote NAME [N] [--to CHANNEL]."""

    name = "promote"
    doc_purpose = "publish a tested generation to a channel, unchanged"
    doc_description = (
        "Without N, the generation of the previous channel is promoted. Without --to, it goes to\n"
        "the first of [binhost] channels."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("name", metavar="NAME", help="the chroot")
        parser.add_argument("number", metavar="N", nargs="?", default="", help="the generation")
        parser.add_argument("--to", metavar="CHANNEL", default="", help="the channel")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.flow import releases

        chroot = site.chroot(arguments.name)
        channel, generation = releases.promote(chroot, arguments.number, arguments.to)
        packages = count(generation.issue.packages, "package")
        say(f"{chroot.name}: {channel} has generation {generation.number}, {packages}")


class Generations(SiteCommand):
    """doit generations [NAME] [--json]."""

    name = "generations"
    doc_purpose = "list the generations, and the names that point to each"

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("name", metavar="NAME", nargs="?", help="the chroot (default: all)")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.publish import generation, retention

        chroots = [site.chroot(arguments.name)] if arguments.name else site.chroots
        by_chroot = {chroot.name: generation.load_all(chroot.binhost) for chroot in chroots}
        if arguments.json:
            rows = [
                row for name, each in by_chroot.items() for row in retention.as_json(name, each)
            ]
            say(json.dumps(rows, indent=1))
        else:
            say("\n".join(retention.text(name, each) for name, each in by_chroot.items()))


class Diff(SiteCommand):
    """doit diff NAME [N [M]] [--json]."""

    name = "diff"
    doc_purpose = "list the changes from one generation to another"
    doc_description = (
        "Without N, from the previous generation to the current one; without M, from N to the\n"
        "current one."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("name", metavar="NAME", help="the chroot")
        parser.add_argument("first", metavar="N", nargs="?", default="", help="a generation")
        parser.add_argument("second", metavar="M", nargs="?", default="", help="a later one")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.flow import releases
        from tasks.publish import diff

        chroot = site.chroot(arguments.name)
        difference = releases.difference(chroot, arguments.first, arguments.second)
        if arguments.json:
            say(json.dumps(diff.as_json(difference), indent=1))
        else:
            say(diff.text(difference, chroot.name))
