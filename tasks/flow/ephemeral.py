"""The site's own nginx for users who are made for as long as a block runs.

For builds that fetch what is restricted, and for proofs that each group gets what is its own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.flow.serve import worker_uid
from tasks.site import Site
from tasks.system.files import closed_folder, write_atomic

if TYPE_CHECKING:
    from tasks.serve.policy import Location

ACCESS = "/run/binmill"  # where a sandbox has what `hand_over` wrote
# wget(1) finds the password by HOME; in a URL or an argument everybody could read it
FETCH = (
    f"env HOME={ACCESS} wget --ca-certificate={ACCESS}/server.pem -t 3 -T 60 --passive-ftp"
    ' -O "${DISTDIR}/${FILE}" "${URI}"'
)
RESUME = FETCH.replace(" wget ", " wget -c ")


@dataclass(frozen=True)
class Admission:
    """A server: where, the certificate to trust, and its users' passwords."""

    url: str
    trusted: str
    passwords: Mapping[str, str]

    def hand_over(self, user: str, folder: Path, group: int | None = None) -> None:
        """What a client needs, as files: whom to trust, and a password if there is such a user.

        They are for root alone, and for a group (gid) if one is named.
        """
        closed_folder(folder)
        write_atomic(folder / "server.pem", self.trusted)
        if user in self.passwords:
            host = urlsplit(self.url).hostname
            line = f"machine {host} login {user} password {self.passwords[user]}\n"
            write_atomic(folder / ".netrc", line, mode=0o600)
        if group is not None:
            folder.chmod(0o750)
            for path in (folder, *folder.iterdir()):
                os.chown(path, -1, group)
            for path in folder.iterdir():
                path.chmod(0o640)


@contextmanager
def admitting(
    site: Site, locations: Sequence[Location], members: Mapping[str, Sequence[str]], space: Path
) -> Iterator[Admission]:
    """nginx over `locations`, with TLS, on loopback, for users (name: groups) with new passwords.

    Its files are in `space`, a workspace, and go with it.
    """
    from tasks.serve import certificates, users
    from tasks.serve.nginx_process import serving

    closed_folder(space / "tls")
    tls = certificates.self_signed(space / "tls")
    passwords = {name: secrets.token_urlsafe(32) for name in members}
    known: dict[str, users.User] = {
        name: {"hash": users.hash_password(passwords[name]), "groups": list(groups)}
        for name, groups in members.items()
    }
    groups = sorted({location.group for location in locations})
    users.write_password_files(known, groups, space / "passwords", worker_uid(site))
    with serving(
        locations,
        site.layout.state,
        space / "nginx",
        tls=tls,
        passwords=space / "passwords",
        worker=site.config.serve.worker,
    ) as url:
        yield Admission(url, tls.certificate.read_text(), passwords)
