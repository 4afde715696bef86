"""serve, user: what a site gives to others, and to whom."""

from __future__ import annotations

import argparse
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from tasks.config.access import Access
from tasks.errors import BinmillError, NotTrusted
from tasks.site import Site
from tasks.system.files import locked
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.serve.nginx import Clients, Tls
    from tasks.serve.nginx_process import Server
    from tasks.serve.policy import Door

_LOG_BYTES = 10 << 20  # of requests, before a new log is begun; the one before is kept


class Words(argparse.ArgumentParser):
    """Reads the words of a command; what is wrong with them is told as one error."""

    def error(self, message: str) -> NoReturn:
        raise BinmillError(message, self.format_usage().strip().removeprefix("usage: "))


def serve(site: Site, words: list[str]) -> None:
    """`doit serve [--print]`: nginx with the site's policy until Ctrl-C, or its server block."""
    from tasks.serve import nginx
    from tasks.serve.nginx_process import running

    parser = Words(prog="doit serve", add_help=False)
    parser.add_argument("--print", action="store_true", dest="show")
    asked = parser.parse_args(words)
    layout, config = site.layout, site.config
    doors, tls, clients = _doors(site), _tls(site), _clients(site)
    _update_passwords(site)
    if asked.show:
        say(
            nginx.server(
                doors,
                str(layout.state),
                str(layout.passwords),
                config.binhost.listen,
                tls,
                clients=clients,
            )
        )
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        running(
            doors,
            layout.state,
            layout.serve,
            config.binhost.listen,
            tls=tls,
            clients=clients,
            passwords=layout.passwords,
            worker=config.serve.worker,
            log=layout.access_log,
        ) as server,
    ):
        for door in doors:
            if (layout.state / door.folder).is_dir():
                say(f"  {server.url}/{door.path}/  {door.group}")
        say(f"serving; Ctrl-C ends it; {layout.access_log} has the requests")
        _keep_up(site, server)


def _keep_up(site: Site, server: Server) -> NoReturn:
    """Tell nginx of new generations, of users who came or went, and of a renewed certificate.

    What nginx does not take is said once, and tried again each second: a certificate is renewed
    before its key, or the other way round.
    """
    seen, told = _seen(site), ""
    while True:
        time.sleep(1)
        if server.ended():
            raise BinmillError("nginx has ended", f"read {site.layout.serve / 'error.log'}")
        now = _seen(site)
        log = site.layout.access_log
        full = log.exists() and log.stat().st_size > _LOG_BYTES
        if now == seen and not full:
            continue
        try:
            if full:
                log.replace(log.with_suffix(".log.1"))
                log.touch(mode=0o600)  # and the reload below opens it
            server.change(_doors(site, at_start=False), _clients(site))
            seen, told = now, ""
        except BinmillError as error:
            if str(error) != told:
                told = str(error)
                say(told)


def _seen(site: Site) -> list[object]:
    """What a running server must be told of when it changes: files and links, by their inode."""
    layout, table = site.layout, site.config.serve
    paths = [layout.users, layout.certificates]
    paths += [layout.site / name for name in (table.certificate, table.certificate_key) if name]
    for door in _all_doors(site):
        paths += [layout.state / folder for folder in (door.folder, door.earlier) if folder]
    found: list[object] = []
    for path in paths:
        try:
            status = path.stat()
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


def user(site: Site, words: list[str]) -> None:
    """`doit user add NAME --group GROUP [--certificate [--days N]]`, `remove NAME`, `list`."""
    from tasks.serve import users

    parser = Words(prog="doit user", add_help=False)
    parser.add_argument("verb", choices=("add", "remove", "list"))
    parser.add_argument("name", nargs="?")
    parser.add_argument("--group", action="append", default=[])
    parser.add_argument("--certificate", action="store_true")
    parser.add_argument("--days", type=int, default=365)
    asked = parser.parse_args(words)
    if asked.verb != "list" and asked.name is None:
        parser.error(f"{asked.verb} needs the name of a user")
    with locked(site.layout.busy("user"), "the list of users"):
        if asked.verb == "list":
            today = time.strftime("%Y-%m-%d", time.gmtime())
            for name, held in sorted(users.read(site.layout.users).items()):
                kind = "password"
                if "until" in held:
                    told = "until" if held["until"] > today else "that has expired,"
                    kind = f"certificate {told} {held['until']}"
                say(f"  {name:<20} {' '.join(held['groups'])}  {kind}")
        elif asked.verb == "remove":
            users.remove(site.layout.users, asked.name, site.layout.certificates)
            _update_passwords(site)
            say(f"{asked.name} has no access any more")
        else:
            _add_user(site, asked)


def _add_user(site: Site, asked: argparse.Namespace) -> None:
    from tasks.serve import users

    file, folder, known = site.layout.users, site.layout.certificates, site.config.access.groups
    if asked.certificate:
        until = users.add_certificate(
            file, asked.name, asked.group, known, folder=folder, days=asked.days
        )
        _update_passwords(site)
        say(
            f"{folder / asked.name}.pem is {asked.name}'s key and certificate, until {until};\n"
            "move it to the client: it is not needed here"
        )
    else:
        password = users.add(file, asked.name, asked.group, known, folder)
        _update_passwords(site)
        # the terminal is the only place where it is ever written
        say(f"{asked.name}'s password, shown this once:\n{password}")


def _doors(site: Site, *, at_start: bool = True) -> list[Door]:
    """The doors, without what would give a group what it may not have.

    An earlier generation that would is closed. A current one is, too, while the server runs; at
    its start that raises NotTrusted, since somebody is there to put it right.
    """
    open_doors = []
    for door in _all_doors(site):
        wrong = _misplaced(site, door.folder, door.group)
        if wrong:
            problem = NotTrusted(
                f"/{door.path}/ would give {door.group} what it may not have: "
                + ", ".join(wrong[:3])
                + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
                "give the whole binhost to another group in [access.binhosts], or name the "
                "licence in [access] free, or the package in [access.packages]",
            )
            if at_start:
                raise problem
            say(f"closed: {problem}")
            continue
        stale = bool(door.earlier) and _misplaced(site, door.earlier, door.group)
        open_doors.append(replace(door, earlier="") if stale else door)
    return open_doors


def _all_doors(site: Site) -> list[Door]:
    """Every door that the policy has."""
    from tasks.serve import policy

    return policy.doors(site.config.access, list(site.config.chroots), site.config.binhost.channels)


def _misplaced(site: Site, folder: str, group: str) -> list[str]:
    from tasks.portage import index
    from tasks.serve import policy

    if site.config.access == Access():
        return []
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


def _clients(site: Site) -> Clients | None:
    """The certificates of users; None while nobody has one."""
    from tasks.serve import certificates, users
    from tasks.serve.nginx import Clients

    serials = users.serials(users.read(site.layout.users), site.config.access.groups)
    if not serials:
        return None
    return Clients(site.layout.certificates / certificates.AUTHORITY, serials)


def _update_passwords(site: Site) -> None:
    """The password files, written again from the list of users."""
    from tasks.serve import users

    owner, held = worker_uid(site), users.read(site.layout.users)
    users.write_password_files(held, site.config.access.groups, site.layout.passwords, owner)


def worker_uid(site: Site) -> int:
    """The user that answers requests, who must be able to read password files."""
    import pwd

    from tasks.errors import HostLacks

    worker = site.config.serve.worker
    try:
        return pwd.getpwnam(worker).pw_uid
    except KeyError:
        raise HostLacks(f"there is no user {worker!r}", "set [serve] worker") from None
