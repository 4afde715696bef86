"""What a chroot of a group may fetch: from the site's own mirror, by a password of its own.

That is done before the build and in a sandbox of its own, where no phase of an ebuild runs as
root. The password is made for it and is gone when it ends: the build, and what is built, never had
one. What was fetched so lies in a DISTDIR that no other chroot sees.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tasks.flow import chroots, etc
from tasks.flow.serve import worker_uid
from tasks.site import Site
from tasks.system.files import closed_folder, write_atomic
from tasks.system.sandbox import Bind
from tasks.system.terminal import say

_ACCESS = "/run/binmill"
# wget(1) finds the password by HOME; in a URL or an argument everybody could read it
_WGET = (
    f"env HOME={_ACCESS} wget --ca-certificate={_ACCESS}/server.pem -t 3 -T 60 --passive-ftp"
    ' -O "${DISTDIR}/${FILE}" "${URI}"'
)


@dataclass(frozen=True)
class Distdir:
    """Where a chroot's distfiles are: mounts, variables, and the folder that it can write to."""

    folder: Path
    binds: tuple[Bind, ...]
    variables: dict[str, str] = field(default_factory=dict)


def distdir(site: Site, name: str) -> Distdir:
    """The DISTDIR of all, or a chroot's own beside it if it is in a group (PORTAGE_RO_DISTDIRS)."""
    from tasks.chroot import etc_portage

    layout = site.layout
    shared, target = str(layout.distfiles), etc_portage.DISTDIR
    if not site.config.effective(name).groups:
        return Distdir(layout.distfiles, (Bind(shared, target, writable=True),))
    own, beside = layout.restricted_distfiles(name), f"{target}.shared"
    return Distdir(
        own,
        (Bind(str(own), target, writable=True), Bind(shared, beside)),
        {"PORTAGE_RO_DISTDIRS": beside},
    )


def fetch(site: Site, name: str, binds: Sequence[Bind], log: Path) -> None:
    """Fetch what the build of a chroot in groups needs, with its password; else do nothing.

    `binds` are those of the build. Raises BinmillError for what is nowhere to be had.
    """
    from tasks.build import emerge

    groups = site.config.effective(name).groups
    if not groups:
        return
    say(f"  fetching for {name} as a member of {', '.join(groups)}")
    with (
        chroots.workspace(site, f"fetch-{name}") as space,
        _mirror(site, name, groups, space) as url,
    ):
        local = [f"{url}/mirror/{group.replace(':', '.')}" for group in groups]
        _write_etc(site, name, local, space / "etc")
        inside = chroots.plan(
            site, name, space, network=True, etc=space / "etc",
            binds=(*binds, Bind(str(space / "access"), _ACCESS)),
            variables={
                **distdir(site, name).variables,
                # as root: what runs as `portage` cannot read the password
                "FEATURES": "-userfetch",
                "FETCHCOMMAND": _WGET,
                "RESUMECOMMAND": _WGET.replace(" wget ", " wget -c "),
            },
        )  # fmt: skip
        emerge.fetch(
            inside, site.config.chroots[name].packages, site.config.build, log,
            f"a restricted file is given to it by: doit distfile add FILE --group {groups[0]}",
        )  # fmt: skip


@contextmanager
def _mirror(site: Site, name: str, groups: Sequence[str], space: Path) -> Iterator[str]:
    """The site's mirror over TLS on loopback, for one user alone; gives its URL.

    What that user needs is in `space`/access: the password, and whom to trust.
    """
    from tasks.serve import certificates, policy, users
    from tasks.serve.running import serving

    for part in ("access", "tls"):
        closed_folder(space / part)
    tls = certificates.throwaway(space / "tls")
    password = secrets.token_urlsafe(32)
    user: users.User = {"hash": users.hashed(password), "groups": list(groups)}
    users.write_password_files({name: user}, groups, space / "passwords", worker_uid(site))
    doors = [policy.mirror(group) for group in groups]
    with serving(
        doors, site.layout.state, space / "nginx", tls=tls, passwords=space / "passwords",
        worker=site.config.serve.worker,
    ) as url:  # fmt: skip
        line = f"machine {urlsplit(url).hostname} login {name} password {password}\n"
        write_atomic(space / "access" / ".netrc", line, mode=0o600)
        write_atomic(space / "access" / "server.pem", tls.certificate.read_text())
        yield url


def _write_etc(site: Site, name: str, local: Sequence[str], target: Path) -> None:
    """The chroot's /etc/portage, with the mirror for as long as it is there."""
    from tasks.chroot import etc_portage

    made = etc.portage_files(site, name, local=local)
    etc_portage.write(made, etc_portage.profile_link(site.config, name), target, site.layout.trash)
