"""log, show: commands that print frozen days, generated files and plans."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import messages, records
from tasks.commands.site_command import Parser, SiteCommand
from tasks.errors import BinmillError
from tasks.records import PLAN
from tasks.site import Chroot, Site
from tasks.system.terminal import say
from tasks.text import printable

if TYPE_CHECKING:
    from tasks.planner.plan import PlannedPackage

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
    """doit show NAME [FILE ...], doit show NAME --plan [--changes] [--json]."""

    name = "show"
    doc_purpose = "print the generated /etc/portage of a chroot, files of it, or its plan"
    doc_description = (
        "--plan prints the packages that plan:NAME has resolved, in the order of their merges;\n"
        "with --changes, what differs from the plan of the last complete build."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("name", metavar="NAME", help="the chroot")
        parser.add_argument("files", metavar="FILE", nargs="*", help="a path below /etc/portage")
        parser.add_argument("--plan", action="store_true", help="print the plan")
        parser.add_argument("--changes", action="store_true", help="compare it with the last one")
        parser.add_argument("--json", action="store_true", help="print the plan as JSON")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        chroot = site.chroot(arguments.name)
        if arguments.plan:
            if arguments.files:
                raise BinmillError("show-plan-and-files")
            say(_plan(chroot, changes=arguments.changes, as_json=arguments.json))
        elif arguments.changes or arguments.json:
            raise BinmillError("show-without-plan")
        else:
            self._files(site, arguments)

    def _files(self, site: Site, arguments: argparse.Namespace) -> None:
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


def _plan(chroot: Chroot, *, changes: bool, as_json: bool) -> str:
    """The plan of a chroot, or its differences from that of the last complete build."""
    from tasks.planner import plan as plans
    from tasks.planner import plan_changes

    layout = chroot.layout
    record = records.load(layout, PLAN(chroot.name))
    plan = plans.read(layout.state / record.path, record.plan)
    if not changes:
        return plans.render(plan).rstrip("\n") if as_json else "\n".join(map(_row, plan.packages))
    before = layout.built_plan(chroot.name)
    if not before.exists():
        raise BinmillError("show-no-built-plan", chroot=chroot.name)
    rows = plan_changes.compare(plans.read(before), plan)
    if as_json:
        return json.dumps([row.plain() for row in rows], indent=1, ensure_ascii=False)
    sentences = [printable(str(row)) for row in rows]
    return "\n".join(sentences) or messages.sentence("plan-unchanged", {"chroot": chroot.name})


def _row(package: PlannedPackage) -> str:
    use = f'  USE="{" ".join(package.use)}"' if package.use else ""
    return printable(f"{package.cpv}::{package.repo}{use}")
