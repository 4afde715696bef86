"""serve, user, distfile: commands for serving packages and distfiles to clients."""

from __future__ import annotations

import argparse
from pathlib import Path

from tasks.commands.site_command import Parser, SiteCommand
from tasks.site import Site


class Serve(SiteCommand):
    """doit serve [--print]."""

    name = "serve"
    doc_purpose = "serve binhosts and the mirror to authorised clients, until Ctrl-C"

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument(
            "--print",
            action="store_true",
            dest="show",
            help="print an nginx server block for a web server of your own",
        )

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.flow import serve

        if arguments.show:
            serve.show_configuration(site)
        else:
            serve.serve_until_interrupted(site)


class User(SiteCommand):
    """doit user add NAME --group GROUP, remove NAME, list."""

    name = "user"
    doc_purpose = "manage users: add, remove, list"
    doc_description = """\
doit user add NAME --group GROUP [--group GROUP ...] [--certificate [--days N]]
doit user remove NAME
doit user list

`add` prints a password, once. With --certificate it writes a certificate to secrets/clients/."""

    def add_arguments(self, parser: Parser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="add | remove | list")
        add = verbs.add_parser("add", help="add a user, or renew a password or certificate")
        add.add_argument("name", metavar="NAME")
        add.add_argument("--group", action="append", default=[], help="site:NAME or role:NAME")
        add.add_argument(
            "--certificate", action="store_true", help="make a certificate instead of a password"
        )
        add.add_argument(
            "--days", type=int, default=365, help="days that a certificate is valid (default: 365)"
        )
        remove = verbs.add_parser("remove", help="remove a user")
        remove.add_argument("name", metavar="NAME")
        verbs.add_parser("list", help="list users and their groups")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.flow import serve

        if arguments.verb == "list":
            serve.list_users(site)
        elif arguments.verb == "remove":
            serve.remove_user(site, arguments.name)
        elif arguments.certificate:
            serve.add_certificate(site, arguments.name, arguments.group, arguments.days)
        else:
            serve.add_password(site, arguments.name, arguments.group)


class Distfile(SiteCommand):
    """doit distfile add FILE ... --group GROUP, sync."""

    name = "distfile"
    doc_purpose = "manage the mirror's distfiles: add files, or sync those that builds fetched"
    doc_description = """\
doit distfile add FILE [FILE ...] [--group GROUP]
doit distfile sync

A file must match a DIST line of the locked tree or of a locked overlay. Without --group it is
added for the group in [access] restricted."""

    def add_arguments(self, parser: Parser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="add | sync")
        add = verbs.add_parser("add", help="add files that a Manifest lists")
        add.add_argument("files", metavar="FILE", nargs="+", type=Path)
        add.add_argument("--group", help="public, site:NAME or role:NAME")
        verbs.add_parser("sync", help="add the distfiles that builds fetched")

    def run(self, site: Site, arguments: argparse.Namespace) -> None:
        from tasks.flow import mirror

        if arguments.verb == "sync":
            mirror.sync(site)
        else:
            mirror.add(site, arguments.files, arguments.group)
