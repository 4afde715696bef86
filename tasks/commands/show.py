"""log, show: commands that print frozen days and generated files."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tasks.commands.site_command import Parser, SiteCommand
from tasks.errors import BinmillError
from tasks.site import Site
from tasks.system.terminal import say

_ROWS = 9  # of each list, on a terminal


class Log(SiteCommand):
    """doit log [DAY [DAY]] [--json]."""

    name = "log"
    doc_purpose = "show what changed between two frozen days"
    doc_description = (
        "Without a DAY, from the second newest frozen day to the newest. A DAY is a tag\n"
        "(YYYYMMDD). A terminal shows the first rows of each list, a pipe gets all."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("days", metavar="DAY", nargs="*", help="a frozen day")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.snapshot import changes, changes_report, frozen_days

        repository = site.layout.tree
        days = changes.choose_days(frozen_days.tags(repository), arguments.days)
        difference = changes.compare(repository, *days)
        if arguments.json:
            say(changes_report.as_json(difference))
        else:
            width, rows = shutil.get_terminal_size().columns, _ROWS if sys.stdout.isatty() else None
            name = site.config.tree.name
            say(changes_report.as_text(difference, name=name, width=width, rows=rows))


class Show(SiteCommand):
    """doit show NAME [FILE ...]."""

    name = "show"
    doc_purpose = "print the generated /etc/portage of a chroot, or files of it"

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("name", metavar="NAME", help="the chroot")
        parser.add_argument("files", metavar="FILE", nargs="*", help="a path below /etc/portage")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.flow.etc import portage_files
        from tasks.portage import etc_portage

        chroot = site.chroot(arguments.name)
        link = etc_portage.profile_link(site.config, chroot.name)
        files = {**portage_files(chroot), etc_portage.PROFILE: f"-> {link}\n"}
        for path in arguments.files:
            if path not in files:
                paths = sorted(files)
                raise BinmillError("etc-file-unknown", chroot=chroot.name, path=path, known=paths)
        # text in another encoding is shown as far as possible
        texts = {path: text.encode("utf-8", "replace").decode() for path, text in files.items()}
        if arguments.files:
            say("\n".join(texts[path].rstrip("\n") for path in arguments.files))
        else:
            parts = (f"==> {Path('/etc/portage', p)} <==\n{texts[p]}" for p in sorted(texts))
            say("\n".join(parts))
