"""Users of a site: each has a generated password or a certificate, and groups.

secrets/users.json is the source: it has the hash of a password, or the serial number of a
certificate. The password files of nginx, one per group, and its table of serial numbers are
generated from it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.errors import BinmillError
from tasks.serve import certificates
from tasks.serve.policy import path_segment
from tasks.system.command import run
from tasks.system.files import private_folder, write_atomic

# A colon ends the name in Basic authentication (RFC 7617); other signs break a URL or a netrc.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAME_LIMIT = 80  # characters of a name that an error shows


@dataclass(frozen=True)
class User:
    """The entry of a user, with either a hash or a serial; in the file "" and missing are one.

    `hash` is that of the password by crypt(5), with its salt; `serial` is the number of the
    certificate, and `until` its last day, for people.
    """

    groups: tuple[str, ...]
    hash: str = ""
    serial: str = ""
    until: str = ""


def read(file: Path) -> dict[str, User]:
    """Read all users, by name; raises BinmillError for a file that cannot be read."""
    if not file.exists():
        return {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {name: _parse(entry) for name, entry in entries.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = type(error).__name__
        raise BinmillError("users-file-damaged", path=file, reason=reason) from error


def add_with_password(
    file: Path,
    name: str,
    groups: Sequence[str],
    site_groups: Sequence[str],
    folder: Path | None = None,
) -> str:
    """Add a user with a new password, or replace an existing one; returns the password.

    `site_groups` are those of the config. `folder` has the certificates, of which this user's is
    deleted. Raises BinmillError for an invalid name or group.
    """
    _check(name, groups, site_groups)
    if folder:
        certificates.delete(folder, name)
    password = secrets.token_urlsafe(32)
    _store(file, name, User(_unique(groups), hash=hash_password(password)))
    return password


def add_with_certificate(
    file: Path,
    name: str,
    groups: Sequence[str],
    site_groups: Sequence[str],
    *,
    folder: Path,
    days: int,
) -> str:
    """Like `add_with_password`, with a certificate and key in `folder`; returns its last day."""
    _check(name, groups, site_groups)
    if not 1 <= days <= certificates.MAX_DAYS:
        raise BinmillError("certificate-days-invalid", days=days, most=certificates.MAX_DAYS)
    certificate = certificates.issue(folder, name, days)
    _store(file, name, User(_unique(groups), serial=certificate.serial, until=certificate.expires))
    return certificate.expires


def remove(file: Path, name: str, folder: Path | None = None) -> None:
    """Remove a user and the certificate in `folder`; raises BinmillError for an unknown one."""
    users = read(file)
    if users.pop(name, None) is None:
        raise BinmillError("user-unknown", user=name[:_NAME_LIMIT])
    _write(file, users)
    if folder:
        certificates.delete(folder, name)


def serials_by_group(users: Mapping[str, User], groups: Sequence[str]) -> dict[str, list[str]]:
    """The serial numbers of the certificates in each group; {} if there are no certificates."""
    holders = [user for _, user in sorted(users.items()) if user.serial]
    if not holders:
        return {}
    return {group: [user.serial for user in holders if group in user.groups] for group in groups}


def hash_password(password: str) -> str:
    """Hash a password as crypt(5), and therefore nginx, reads it: SHA-512 with a salt.

    The password goes through a pipe, since every user can see a command line.
    """
    return run(
        "openssl", "passwd", "-6", "-stdin", input=f"{password}\n".encode(), timeout=60
    ).stdout.strip()


def password_file(users: Mapping[str, User], group: str) -> str:
    """The users of one group in the format of nginx's auth_basic_user_file."""
    return "".join(
        f"{name}:{user.hash}\n"
        for name, user in sorted(users.items())
        if group in user.groups and user.hash
    )


def write_password_files(
    users: Mapping[str, User], groups: Sequence[str], folder: Path, owner: int
) -> None:
    """Write a password file for each group to `folder`, readable by `owner` (a uid) alone.

    nginx reads them at each request. Files of groups that no longer exist are deleted.
    """
    private_folder(folder)
    if os.geteuid() == 0:
        os.chown(folder, owner, -1)
    texts = {path_segment(group): password_file(users, group) for group in groups}
    for stray in folder.iterdir():
        if stray.name not in texts:
            stray.unlink()
    for name, text in texts.items():
        new = folder / f".{name}.new"
        write_atomic(new, text, mode=0o400)
        if os.geteuid() == 0:
            os.chown(new, owner, -1)
        new.rename(folder / name)


def _parse(entry: Mapping[str, object]) -> User:
    """A user from its entry in the file; raises LookupError, TypeError or ValueError."""
    groups, texts = entry["groups"], [entry.get(key, "") for key in ("hash", "serial", "until")]
    if not isinstance(groups, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError
    user = User(tuple(map(str, groups)), *map(str, texts))
    if not user.hash and not user.serial:
        raise ValueError
    return user


def _check(name: str, groups: Sequence[str], site_groups: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise BinmillError("user-name-invalid", user=name[:_NAME_LIMIT])
    if not groups:
        raise BinmillError("user-without-group", user=name)
    for group in groups:
        if not site_groups:
            raise BinmillError("groups-not-configured", group=group[:_NAME_LIMIT])
        if group not in site_groups:
            raise BinmillError(
                "user-group-unknown", group=group[:_NAME_LIMIT], groups=list(site_groups)
            )


def _unique(groups: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(groups)))


def _store(file: Path, name: str, user: User) -> None:
    _write(file, {**read(file), name: user})


def _write(file: Path, users: Mapping[str, User]) -> None:
    if not file.parent.exists():
        private_folder(file.parent)
    entries = {
        name: {key: value for key, value in asdict(user).items() if value or key == "groups"}
        for name, user in users.items()
    }
    write_atomic(file, json.dumps(entries, indent=1, sort_keys=True) + "\n", mode=0o600)
