"""fsck, gc: commands that verify artifacts and delete those that are no longer needed."""

from __future__ import annotations

import argparse

from tasks.commands.site_command import Parser, SiteCommand
from tasks.site import Site


class Fsck(SiteCommand):
    """doit fsck [--repair]."""

    name = "fsck"
    doc_purpose = "verify all artifacts; --repair marks what is damaged"
    doc_description = (
        "The exit code is 1 if damage is left. --repair deletes each damaged result and its\n"
        "record, so that the next run makes only those again."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument(
            "--repair",
            action="store_true",
            help="delete damaged results, so that the next run makes them again",
        )

    def run(self, site: Site, arguments: argparse.Namespace) -> int:
        from tasks import graph
        from tasks.engine.backend import record_digests
        from tasks.upkeep.fsck import check

        return check(site, graph.artifacts(site), record_digests, repair=arguments.repair)


class Gc(SiteCommand):
    """doit gc [--yes]."""

    name = "gc"
    doc_purpose = "list what is no longer needed; --yes deletes it"
    doc_description = (
        "Frozen days, generations, the mirror's files and secrets are never deleted. Nothing is\n"
        "deleted while a task of the site runs."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("--yes", action="store_true", help="delete what is listed")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks import graph
        from tasks.upkeep import gc

        if arguments.yes:
            gc.delete(site, graph.artifacts(site))
        else:
            gc.show(site, graph.artifacts(site))
