"""serve, user, distfile: what a site gives to others, and to whom."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tasks import records
from tasks.access import Access
from tasks.errors import BinmillError, NotTrusted
from tasks.site import Site
from tasks.system.files import locked, write_atomic
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.serve.nginx import Tls
    from tasks.serve.policy import Door


class _Words(argparse.ArgumentParser):
    """Reads the words of a command; what is wrong with them is told as one error."""

    def error(self, message: str) -> NoReturn:
        raise BinmillError(message, self.format_usage().strip().removeprefix("usage: "))


def serve(site: Site, words: list[str]) -> None:
    """`doit serve [--print]`: nginx with the site's policy until Ctrl-C, or its server block."""
    from tasks.serve import nginx, policy
    from tasks.serve.running import serving

    parser = _Words(prog="doit serve", add_help=False)
    parser.add_argument("--print", action="store_true", dest="show")
    asked = parser.parse_args(words)
    layout, config = site.layout, site.config
    doors = policy.doors(config.access, list(config.chroots))
    if config.access != Access():
        doors = _without_misplaced(site, doors)
    _update_passwords(site)
    tls = _tls(site)
    if asked.show:
        passwords = str(layout.passwords)
        say(nginx.server(doors, str(layout.state), passwords, config.binhost.listen, tls))
        return
    with serving(
        doors, layout.state, layout.serve, config.binhost.listen,
        tls=tls, passwords=layout.passwords, worker=config.serve.worker,
    ) as url:  # fmt: skip
        for door in doors:
            if (layout.state / door.folder).is_dir():
                say(f"  {url}/{door.path}/  {door.group}")
        say("serving; Ctrl-C ends it")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("")


def user(site: Site, words: list[str]) -> None:
    """`doit user add NAME --group GROUP`, `remove NAME`, `list`."""
    from tasks.serve import users

    parser = _Words(prog="doit user", add_help=False)
    parser.add_argument("verb", choices=("add", "remove", "list"))
    parser.add_argument("name", nargs="?")
    parser.add_argument("--group", action="append", default=[])
    asked = parser.parse_args(words)
    if asked.verb != "list" and asked.name is None:
        parser.error(f"{asked.verb} needs the name of a user")
    with locked(site.layout.busy("user"), "the list of users"):
        file = site.layout.users
        if asked.verb == "list":
            for name, held in sorted(users.read(file).items()):
                say(f"  {name:<20} {' '.join(held['groups'])}")
        elif asked.verb == "remove":
            users.remove(file, asked.name)
            _update_passwords(site)
            say(f"{asked.name} has no access any more")
        else:
            password = users.add(file, asked.name, asked.group, site.config.access.groups)
            _update_passwords(site)
            # the terminal is the only place where it is ever written
            say(f"{asked.name}'s password, shown this once:\n{password}")


def distfile(site: Site, words: list[str]) -> None:
    """`doit distfile add FILE --group GROUP`, `doit distfile sync`."""
    parser = _Words(prog="doit distfile", add_help=False)
    parser.add_argument("verb", choices=("add", "sync"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--group")
    asked = parser.parse_args(words)
    if (asked.verb == "add") != bool(asked.files):
        parser.error("add takes files, sync none")
    with locked(site.layout.busy("distfile"), "the mirror"):
        if asked.verb == "add":
            _add(site, asked.files, asked.group)
        else:
            _sync(site)


def _add(site: Site, files: list[Path], group: str | None) -> None:
    from tasks.serve import distfiles

    chosen = group or site.config.access.restricted
    known = ["public", *site.config.access.groups]
    if chosen not in known:
        raise BinmillError(
            f"there is no group {chosen!r}" if chosen else "which group may have it?",
            f"say --group with one of: {', '.join(known)}",
        )
    named = distfiles.wanted(_trees(site))
    for file in files:
        name = distfiles.add(file, named, site.layout.mirror(chosen))
        say(f"  {name}: fits its Manifest, for {chosen}")


def _sync(site: Site) -> None:
    """Let in what chroots have fetched and anybody may have; delete what has long been unnamed."""
    from tasks.serve import distfiles

    layout = site.layout
    named = distfiles.wanted(_trees(site))
    public = layout.mirror("public")
    there = distfiles.held(public)
    new, refused = 0, []
    for name, source in _fetched(layout.distfiles):
        known = {dist: True for dist, free in named.get(name, {}).items() if free}
        if not known or name in there:
            continue
        try:
            distfiles.let_in(source, name, known, public)
            new += 1
        except (NotTrusted, FileNotFoundError):  # half a download, or worse; or just now gone
            refused.append(name)
        except BinmillError as error:
            refused.append(name)
            say(f"  {error.message}")
    write_atomic(public / "layout.conf", distfiles.LAYOUT)
    gone = 0
    for group in ("public", *site.config.access.groups):
        folder = layout.mirror(group)
        gone += len(distfiles.tidy(folder, set(named), time.time(), site.config.mirror.keep_days))
    say(f"  mirror: {new} new, {len(refused)} refused, {gone} deleted")
    for name in refused[:5]:
        say(f"  refused: {name!r} does not fit its Manifest")


def _fetched(folder: Path) -> Iterator[tuple[str, Path]]:
    """What lies in DISTDIR, by name; a chroot wrote it, so nothing is known of it."""
    if folder.is_dir() and not folder.is_symlink():
        for entry in sorted(folder.iterdir()):
            yield entry.name, entry


def _trees(site: Site) -> list[Path]:
    """The locked tree and overlays as files; raises Stale for one that has not been made yet."""
    tasks = ["tree", *(f"overlay:{name}" for name in site.config.overlays)]
    return [site.layout.export(records.read(site.layout, task)["commit"]) for task in tasks]


def _without_misplaced(site: Site, doors: Sequence[Door]) -> list[Door]:
    """The doors, those to earlier generations closed that would give a group what it may not have.

    Raises NotTrusted where a current generation would.
    """
    open_doors = []
    for door in doors:
        wrong = _misplaced(site, door.folder, door.group)
        if wrong:
            raise NotTrusted(
                f"/{door.path}/ would give {door.group} what it may not have: "
                + ", ".join(wrong[:3])
                + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
                "give the whole binhost to another group in [access.binhosts], or name the "
                "licence in [access] free, or the package in [access.packages]",
            )
        stale = bool(door.earlier) and _misplaced(site, door.earlier, door.group)
        open_doors.append(replace(door, earlier="") if stale else door)
    return open_doors


def _misplaced(site: Site, folder: str, group: str) -> list[str]:
    from tasks.publish import index
    from tasks.serve import policy

    file = site.layout.state / folder / "Packages"
    if not file.is_file():
        return []
    _, stanzas = index.parse(file.read_text(encoding="utf-8"))
    return policy.misplaced(stanzas, group, site.config.access)


def _tls(site: Site) -> Tls | None:
    from tasks.serve.nginx import Tls

    table = site.config.serve
    if table.certificate is None or table.certificate_key is None:
        return None
    return Tls(site.layout.site / table.certificate, site.layout.site / table.certificate_key)


def _update_passwords(site: Site) -> None:
    """The password files, written again from the list of users."""
    import pwd

    from tasks.errors import HostLacks
    from tasks.serve import users

    worker = site.config.serve.worker
    try:
        owner = pwd.getpwnam(worker).pw_uid
    except KeyError:
        raise HostLacks(f"there is no user {worker!r}", "set [serve] worker") from None
    held = users.read(site.layout.users)
    users.write_password_files(held, site.config.access.groups, site.layout.passwords, owner)
