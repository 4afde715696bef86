"""Serving: nginx with the site's policy, and the users that may fetch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
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
    from tasks.serve.policy import Location

_LOG_BYTES = 10 << 20  # of requests, before a new log is begun; the one before is kept


def show_configuration(site: Site) -> None:
    """Print nginx's server block, for a web server of the operator's own."""
    from tasks.serve import nginx

    layout = site.layout
    _update_passwords(site)
    say(
        nginx.server_block(
            _locations(site),
            str(layout.state),
            str(layout.passwords),
            site.config.binhost.listen,
            _tls(site),
            clients=_clients(site),
        )
    )


def serve_until_interrupted(site: Site) -> None:
    """Run nginx with the site's policy until Ctrl-C."""
    from tasks.serve.nginx_process import running

    layout, config = site.layout, site.config
    locations = _locations(site)
    _update_passwords(site)
    with (
        contextlib.suppress(KeyboardInterrupt),
        running(
            locations,
            layout.state,
            layout.serve,
            config.binhost.listen,
            tls=_tls(site),
            clients=_clients(site),
            passwords=layout.passwords,
            worker=config.serve.worker,
            log=layout.access_log,
        ) as server,
    ):
        for location in locations:
            if (layout.state / location.folder).is_dir():
                say(f"  {server.url}/{location.path}/  {location.group}")
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
        if server.has_ended():
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
            server.reload(_locations(site, at_start=False), _clients(site))
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
    for location in _all_locations(site):
        paths += [layout.state / folder for folder in (location.folder, location.earlier) if folder]
    found: list[object] = []
    for path in paths:
        try:
            status = path.stat()
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


def list_users(site: Site) -> None:
    """Print the users, their groups, and what each shows to be let in."""
    from tasks.serve import users

    today = time.strftime("%Y-%m-%d", time.gmtime())
    for name, user in sorted(users.read(site.layout.users).items()):
        kind = "password"
        if "until" in user:
            state = "until" if user["until"] > today else "expired"
            kind = f"certificate {state} {user['until']}"
        say(f"  {name:<20} {' '.join(user['groups'])}  {kind}")


def remove_user(site: Site, name: str) -> None:
    """Remove a user."""
    from tasks.serve import users

    with _users_locked(site):
        users.remove(site.layout.users, name, site.layout.certificates)
        _update_passwords(site)
    say(f"{name} has no access any more")


def add_certificate(site: Site, name: str, groups: Sequence[str], days: int) -> None:
    """Add a user with a certificate, or give one new groups and a new certificate."""
    from tasks.serve import users

    layout, known = site.layout, site.config.access.groups
    with _users_locked(site):
        until = users.add_with_certificate(
            layout.users, name, groups, known, folder=layout.certificates, days=days
        )
        _update_passwords(site)
    say(
        f"{layout.certificates / name}.pem is {name}'s key and certificate, until {until};\n"
        "move it to the client: it is not needed here"
    )


def add_password(site: Site, name: str, groups: Sequence[str]) -> None:
    """Add a user with a password, or give one new groups and a new password."""
    from tasks.serve import users

    layout = site.layout
    with _users_locked(site):
        password = users.add_with_password(
            layout.users, name, groups, site.config.access.groups, layout.certificates
        )
        _update_passwords(site)
    # the terminal is the only place where it is ever written
    say(f"{name}'s password, shown this once:\n{password}")


def _users_locked(site: Site) -> AbstractContextManager[None]:
    return locked(site.layout.busy("user"), "the list of users")


def _locations(site: Site, *, at_start: bool = True) -> list[Location]:
    """The locations, without what would give a group what it may not have.

    An earlier generation that would is closed. A current one is, too, while the server runs; at
    its start that raises NotTrusted, since somebody is there to put it right.
    """
    open_locations = []
    for location in _all_locations(site):
        wrong = _misplaced(site, location.folder, location.group)
        if wrong:
            problem = NotTrusted(
                f"/{location.path}/ would give {location.group} what it may not have: "
                + ", ".join(wrong[:3])
                + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
                "give the whole binhost to another group in [access.binhosts], or name the "
                "licence in [access] free, or the package in [access.packages]",
            )
            if at_start:
                raise problem
            say(f"closed: {problem}")
            continue
        stale = bool(location.earlier) and _misplaced(site, location.earlier, location.group)
        open_locations.append(replace(location, earlier="") if stale else location)
    return open_locations


def _all_locations(site: Site) -> list[Location]:
    """Every location that the policy has."""
    from tasks.serve import policy

    return policy.locations(
        site.config.access, list(site.config.chroots), site.config.binhost.channels
    )


def _misplaced(site: Site, folder: str, group: str) -> list[str]:
    from tasks.portage import index
    from tasks.serve import policy

    if site.config.access == Access():
        return []
    file = site.layout.state / folder / "Packages"
    if not file.is_file():
        return []
    _, stanzas = index.parse(file.read_text(encoding="utf-8"))
    return policy.forbidden_packages(stanzas, group, site.config.access)


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

    serials = users.serials_by_group(users.read(site.layout.users), site.config.access.groups)
    if not serials:
        return None
    return Clients(site.layout.certificates / certificates.CA_FILE, serials)


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
