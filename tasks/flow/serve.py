"""Serving: nginx with the site's policy, and the users that may fetch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tasks.config.access import Access
from tasks.errors import BinmillError, NotTrusted
from tasks.site import Site
from tasks.system.files import locked
from tasks.system.notes import note
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.serve.nginx import ClientCertificates, Tls
    from tasks.serve.nginx_process import Server
    from tasks.serve.policy import Location

_LOG_BYTES = 10 << 20  # of requests; then a new log begins, and the previous one is kept


def show_configuration(site: Site) -> None:
    """Print nginx's server block, for a web server of the operator's own."""
    from tasks.serve import nginx

    layout, listen = site.layout, site.config.binhost.listen
    locations, root, passwords = _locations(site), str(layout.state), str(layout.passwords)
    tls, clients = _tls(site), _clients(site)
    _update_passwords(site)
    say(nginx.server_block(locations, root, passwords, listen, tls, clients=clients))


def serve_until_interrupted(site: Site) -> None:
    """Run nginx with the site's policy until Ctrl-C."""
    from tasks.serve.nginx_process import serving

    layout, config = site.layout, site.config
    locations = _locations(site)
    _update_passwords(site)
    with (
        contextlib.suppress(KeyboardInterrupt),
        serving(
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
        _follow_changes(site, server)


def list_users(site: Site) -> None:
    """Print the users, their groups, and the kind of their credential."""
    from tasks.serve import users

    today = time.strftime("%Y-%m-%d", time.gmtime())
    for name, user in sorted(users.read(site.layout.users).items()):
        kind = "password"
        if user.until:
            kind = f"certificate {'until' if user.until > today else 'expired'} {user.until}"
        say(f"  {name:<20} {' '.join(user.groups)}  {kind}")


def remove_user(site: Site, name: str) -> None:
    """Remove a user."""
    from tasks.serve import users

    with _changing_users(site):
        users.remove(site.layout.users, name, site.layout.certificates)
    say(f"{name} no longer has access")


def add_certificate(site: Site, name: str, groups: Sequence[str], days: int) -> None:
    """Add a user with a certificate, or replace an existing user."""
    from tasks.serve import users

    layout, site_groups = site.layout, site.config.access.groups
    with _changing_users(site):
        until = users.add_with_certificate(
            layout.users, name, groups, site_groups, folder=layout.certificates, days=days
        )
    say(
        f"{layout.certificates / name}.pem is {name}'s key and certificate, until {until};\n"
        "move it to the client: it is not needed here"
    )


def add_password(site: Site, name: str, groups: Sequence[str]) -> None:
    """Add a user with a password, or replace an existing user."""
    from tasks.serve import users

    layout, site_groups = site.layout, site.config.access.groups
    with _changing_users(site):
        password = users.add_with_password(
            layout.users, name, groups, site_groups, layout.certificates
        )
    # the password is written to the terminal and nowhere else
    say(f"{name}'s password, shown this once:\n{password}")


@contextlib.contextmanager
def _changing_users(site: Site) -> Iterator[None]:
    """Lock the list of users for the block, then write the password files."""
    with locked(site.layout.task_lock("user"), "the list of users"):
        yield
        _update_passwords(site)


def _follow_changes(site: Site, server: Server) -> NoReturn:
    """Reload nginx for new generations, changed users, and a renewed certificate.

    A failing change is reported once and tried again each second: a certificate and its key are
    renewed one after the other.
    """
    log = site.layout.access_log
    versions, last_error = _versions(site), ""
    while True:
        time.sleep(1)
        if server.has_ended():
            raise BinmillError("nginx-ended", log=site.layout.serve / "error.log")
        newest = _versions(site)
        full = log.exists() and log.stat().st_size > _LOG_BYTES
        if newest == versions and not full:
            continue
        try:
            if full:
                log.replace(log.with_suffix(".log.1"))
                log.touch(mode=0o600)  # the reload below opens it
            server.reload(_locations(site, at_start=False), _clients(site))
            versions, last_error = newest, ""
        except BinmillError as error:
            if error.message != last_error:
                last_error = error.message
                note("change-not-served", cause=last_error)


def _versions(site: Site) -> list[tuple[int, int, int] | None]:
    """The present versions of all files and links that nginx depends on; None if missing."""
    layout, table = site.layout, site.config.serve
    paths = [layout.users, layout.certificates]
    paths += [layout.site / name for name in (table.certificate, table.certificate_key) if name]
    for location in _all_locations(site):
        folders = (location.folder, location.earlier)
        paths += [layout.state / folder for folder in folders if folder]
    return [_version(path) for path in paths]


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _locations(site: Site, *, at_start: bool = True) -> list[Location]:
    """The locations, except those with packages that their group may not fetch.

    A previous generation with such packages is not served. Nor is a current one while the server
    runs; at its start that raises NotTrusted, since a person is present to correct it.
    """
    served = []
    for location in _all_locations(site):
        forbidden = _forbidden(site, location.folder, location.group)
        if not forbidden:
            stale = location.earlier and _forbidden(site, location.earlier, location.group)
            served.append(replace(location, earlier="") if stale else location)
            continue
        path, group = location.path, location.group
        if at_start:
            raise NotTrusted("location-forbidden", path=path, group=group, packages=forbidden)
        note("location-closed", path=path, group=group, packages=forbidden)
    return served


def _all_locations(site: Site) -> list[Location]:
    from tasks.serve import policy

    config = site.config
    return policy.locations(config.access, list(config.chroots), config.binhost.channels)


def _forbidden(site: Site, folder: str, group: str) -> list[str]:
    """The packages in a view that its group may not fetch."""
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


def _clients(site: Site) -> ClientCertificates | None:
    """The certificates of users; None if there are none."""
    from tasks.serve import certificates, users
    from tasks.serve.nginx import ClientCertificates

    serials = users.serials_by_group(users.read(site.layout.users), site.config.access.groups)
    if not serials:
        return None
    return ClientCertificates(site.layout.certificates / certificates.CA_FILE, serials)


def _update_passwords(site: Site) -> None:
    """Write the password files from the list of users."""
    from tasks.serve import users
    from tasks.serve.nginx_process import worker_uid

    entries, owner = users.read(site.layout.users), worker_uid(site.config.serve.worker)
    users.write_password_files(entries, site.config.access.groups, site.layout.passwords, owner)
