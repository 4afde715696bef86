"""Users, each with a password or a certificate, which are made here.

secrets/users.json is what holds: of a password a hash, of a certificate its serial number. The
password files that nginx reads, one per group, and its table of serials are written from it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from tasks.errors import BinmillError
from tasks.serve import certificates
from tasks.serve.policy import as_path
from tasks.system.command import run
from tasks.system.files import closed_folder, write_atomic

# In Basic authentication a colon ends the name (RFC 7617); in a URL or a netrc others would hurt.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class User(TypedDict):
    """What is kept of a user, who has one of the two: a password, or a certificate."""

    groups: list[str]
    hash: NotRequired[str]  # of crypt(5), with its salt
    serial: NotRequired[str]
    until: NotRequired[str]  # the day on which the certificate expires; for people


def read(file: Path) -> dict[str, User]:
    """All users by name; raises BinmillError for a file that cannot be read."""
    if not file.exists():
        return {}
    try:
        found: dict[str, User] = json.loads(file.read_text(encoding="utf-8"))
        for user in found.values():
            assert isinstance(user["groups"], list)  # noqa: S101
            assert isinstance(user.get("hash") or user["serial"], str)  # noqa: S101
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise BinmillError(
            f"{file} cannot be read ({type(error).__name__})",
            "take it back from a copy, or delete it and add the users again",
        ) from error
    return found


def add(
    file: Path,
    name: str,
    groups: Sequence[str],
    known: Sequence[str],
    folder: Path | None = None,
) -> str:
    """Make a user, or give one who is there a new password and new groups; returns the password.

    `folder` has the certificates: one that the user had is deleted. Raises BinmillError for a
    name or a group (`known` has those of the config) that cannot be.
    """
    _check(name, groups, known)
    if folder:
        certificates.withdraw(folder, name)
    password = secrets.token_urlsafe(32)
    _put(file, name, {"hash": hashed(password), "groups": sorted(set(groups))})
    return password


def add_certificate(
    file: Path, name: str, groups: Sequence[str], known: Sequence[str], *, folder: Path, days: int
) -> str:
    """As `add`, but with a certificate and its key in `folder`; returns the day it expires."""
    _check(name, groups, known)
    if not 1 <= days <= certificates.MOST_DAYS:
        raise BinmillError(
            f"a certificate cannot last {days} days", f"say --days 1 to {certificates.MOST_DAYS}"
        )
    serial, until = certificates.issue(folder, name, days)
    _put(file, name, {"serial": serial, "until": until, "groups": sorted(set(groups))})
    return until


def remove(file: Path, name: str, folder: Path | None = None) -> None:
    """Forget a user, and delete a certificate in `folder`; raises BinmillError for nobody."""
    users = read(file)
    if users.pop(name, None) is None:
        raise BinmillError(f"there is no user {name[:60]!r}", "doit user list")
    _write(file, users)
    if folder:
        certificates.withdraw(folder, name)


def serials(users: dict[str, User], groups: Sequence[str]) -> dict[str, list[str]]:
    """The serial numbers of the certificates in each group; {} if nobody has one."""
    held = {name: user["serial"] for name, user in sorted(users.items()) if "serial" in user}
    if not held:
        return {}
    return {g: [serial for n, serial in held.items() if g in users[n]["groups"]] for g in groups}


def hashed(password: str) -> str:
    """SHA-512 with a salt, as crypt(5) and so nginx reads it.

    The password goes through a pipe: a command line can be seen by everybody.
    """
    return run(
        "openssl", "passwd", "-6", "-stdin", input=f"{password}\n".encode(), timeout=60
    ).stdout.strip()


def password_file(users: dict[str, User], group: str) -> str:
    """The users of one group, as nginx's auth_basic_user_file has them."""
    return "".join(
        f"{name}:{user['hash']}\n"
        for name, user in sorted(users.items())
        if group in user["groups"] and "hash" in user
    )


def write_password_files(
    users: dict[str, User], groups: Sequence[str], folder: Path, owner: int
) -> None:
    """A file for every group below `folder`, readable for `owner` (a uid) alone.

    A running nginx reads them at each request. Files of groups that are gone are deleted.
    """
    closed_folder(folder)
    if os.geteuid() == 0:
        os.chown(folder, owner, -1)
    wanted = {as_path(group): password_file(users, group) for group in groups}
    for stray in folder.iterdir():
        if stray.name not in wanted:
            stray.unlink()
    for name, text in wanted.items():
        new = folder / f".{name}.new"
        write_atomic(new, text, mode=0o400)
        if os.geteuid() == 0:
            os.chown(new, owner, -1)
        new.rename(folder / name)


def _check(name: str, groups: Sequence[str], known: Sequence[str]) -> None:
    if not _NAME.fullmatch(name):
        raise BinmillError(
            f"{name[:60]!r} cannot be a user", "use letters, digits, _, . and -, at most 64"
        )
    if not groups:
        raise BinmillError(f"{name} would be in no group", "say --group site:NAME or role:NAME")
    for group in groups:
        if group not in known:
            raise BinmillError(
                f"there is no group {group[:80]!r}",
                f"[access] groups in config.toml has: {', '.join(known) or 'none'}",
            )


def _put(file: Path, name: str, user: User) -> None:
    _write(file, {**read(file), name: user})


def _write(file: Path, users: dict[str, User]) -> None:
    if not file.parent.exists():
        closed_folder(file.parent)
    write_atomic(file, json.dumps(users, indent=1, sort_keys=True) + "\n", mode=0o600)
