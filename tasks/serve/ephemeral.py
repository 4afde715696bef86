"""A temporary nginx for temporary users, with TLS on loopback.

Builds fetch restricted files from it, and the access test checks what each group may fetch.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tasks.serve import certificates, users
from tasks.serve.nginx_process import serving, worker_uid
from tasks.serve.policy import Location
from tasks.system.files import private_folder, write_atomic

CREDENTIALS = "/run/binmill"  # the folder of `write_credentials` inside of a sandbox
# wget(1) finds the password by HOME; every user could read it in a URL or an argument
FETCH_COMMAND = (
    f"env HOME={CREDENTIALS} wget --ca-certificate={CREDENTIALS}/server.pem"
    ' -t 3 -T 60 --passive-ftp -O "${DISTDIR}/${FILE}" "${URI}"'
)
RESUME_COMMAND = FETCH_COMMAND.replace(" wget ", " wget -c ")


@dataclass(frozen=True)
class EphemeralServer:
    """A temporary nginx: its base URL, its certificate (PEM), and its users' passwords."""

    url: str
    certificate: str
    passwords: Mapping[str, str]

    def write_credentials(self, user: str, folder: Path, group: int | None = None) -> None:
        """Write the certificate to trust, and the password if there is such a user, to a folder.

        Only root can read it, and `group` (a gid) if it is given.
        """
        private_folder(folder)
        write_atomic(folder / "server.pem", self.certificate)
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
def ephemeral_server(
    locations: Sequence[Location],
    groups: Mapping[str, Sequence[str]],
    state: Path,
    space: Path,
    worker: str,
) -> Iterator[EphemeralServer]:
    """Run nginx for the length of the block, for users with new passwords (`groups` by name).

    Its own files are in `space`, a workspace.
    """
    private_folder(space / "tls")
    tls = certificates.self_signed(space / "tls")
    passwords = {name: secrets.token_urlsafe(32) for name in groups}
    entries = {
        name: users.User(tuple(groups[name]), hash=users.hash_password(password))
        for name, password in passwords.items()
    }
    location_groups = sorted({location.group for location in locations})
    users.write_password_files(entries, location_groups, space / "passwords", worker_uid(worker))
    with serving(
        locations,
        state,
        space / "nginx",
        tls=tls,
        passwords=space / "passwords",
        worker=worker,
    ) as server:
        yield EphemeralServer(server.url, tls.certificate.read_text(), passwords)
