"""fsck, gc: commands that check what was made and delete what nothing needs."""

from __future__ import annotations

import argparse

from tasks.commands.site_command import Parser, SiteCommand
from tasks.site import Site


class Fsck(SiteCommand):
    """doit fsck [--repair]."""

    name = "fsck"
    doc_purpose = "read and verify everything that records name; --repair marks damage"
    doc_description = (
        "Exit code 1 where damage is left. A repair takes a damaged result and its record away,\n"
        "so that the next run makes just that again."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("--repair", action="store_true", help="mark what is damaged")

    def run(self, site: Site, arguments: argparse.Namespace) -> int:
        from tasks import graph
        from tasks.engine.backend import remembered
        from tasks.upkeep.fsck import check

        return check(site, graph.artifacts(site), remembered, repair=arguments.repair)


class Gc(SiteCommand):
    """doit gc [--yes]."""

    name = "gc"
    doc_purpose = "list what nothing needs any more; --yes deletes it"
    doc_description = (
        "Frozen days, generations, the mirror's files and secrets are never deleted. Nothing is\n"
        "deleted while a task of the site runs."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("--yes", action="store_true", help="delete it")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks import graph
        from tasks.upkeep import gc

        if arguments.yes:
            gc.delete(site, graph.artifacts(site))
        else:
            gc.show(site, graph.artifacts(site))
