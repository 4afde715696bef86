"""Signing packages and indexes, outside the chroot that built them.

Every ebuild could read a key inside a build. So Portage (portage/inside/sign.py) signs in a
sandbox of its own: a throwaway layer over the verified seed, in which no ebuild has ever run,
without network, with only the new packages and the key's home mounted. The results are verified
again outside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.errors import CommandFailed, HostLacks
from tasks.portage import gpkg, inside
from tasks.system import sandbox
from tasks.system.command import run
from tasks.system.gpgv import Role
from tasks.system.sandbox import Sandbox

KEY_HOME = "/run/binmill/gnupg"
PACKAGES = "/run/binmill/packages"
PROGRAM = Path(inside.__file__).with_name("sign.py")
PROGRAM_INSIDE = f"/run/binmill/{PROGRAM.name}"
_LIST = ".to-sign"
_TIMEOUT = 24 * 3600  # seconds


def variables(key: str) -> dict[str, str]:
    """make.conf variables of the signing sandbox (make.conf(5))."""
    return {"BINPKG_GPG_SIGNING_GPG_HOME": KEY_HOME, "BINPKG_GPG_SIGNING_KEY": key}


def public_key(home: Path, key: str | None) -> bytes:
    """Export the public half of the signing key, armored; raises HostLacks if it cannot sign.

    The secret half is looked up as a file named by its keygrip: asking gpg would start a
    gpg-agent, which would stay behind.
    """
    if key is None:
        raise HostLacks("signing-key-not-set", home=home)
    if not home.is_dir():
        raise HostLacks("signing-home-missing", home=home)
    options = ("gpg", "--homedir", home, "--batch", "--no-tty", "--no-autostart")
    keys = run(
        *options, "--with-colons", "--with-keygrip", "--list-keys", key, check=False, timeout=60
    )
    grips = signing_grips(keys.stdout)
    if not any((home / "private-keys-v1.d" / f"{grip}.key").is_file() for grip in grips):
        raise HostLacks("signing-key-unusable", key=key, home=home)
    return run(*options, "--armor", "--export", key, timeout=60).stdout.encode()


def signing_grips(listing: str) -> list[str]:
    """The keygrips of one key that may sign, from gpg's colon format (GnuPG's doc/DETAILS).

    Field 2 is the validity of a key, field 12 its capabilities. An expired, revoked or disabled
    primary key makes its subkeys unusable.
    """
    grips: list[str] = []
    able = primary = False
    for line in listing.splitlines():
        row = line.split(":")
        if row[0] in ("pub", "sub"):
            usable = row[1] not in ("e", "r", "i", "d", "n") and "D" not in row[11]
            primary = usable if row[0] == "pub" else primary
            able = primary and usable and "s" in row[11]
        elif row[0] == "grp" and able:
            grips.append(row[9])
    return grips


def sign_packages(signing: Sandbox, folder: Path, packages: Sequence[str], log: Path) -> None:
    """Sign packages in place: paths below `folder`, which the sandbox mounts at PACKAGES."""
    with _listing(folder, packages, log) as listing:
        command = ["python3", "-I", PROGRAM_INSIDE, listing]
        sandbox.run(signing, command, log=log, timeout=_TIMEOUT)


def sign_files(signing: Sandbox, folder: Path, files: Sequence[str], key: str, log: Path) -> None:
    """Write an armored signature FILE.asc beside each of `files`, names in `folder`.

    The sandbox mounts the folder at PACKAGES. The agent of gpg ends with the sandbox, however that
    ends.
    """
    command = [
        "gpg",
        "--homedir",
        KEY_HOME,
        "--batch",
        "--no-tty",
        "--yes",
        "--digest-algo",
        "SHA512",
        "--local-user",
        key,
        "--armor",
        "--detach-sign",
    ]
    with _listing(folder, files, log) as listing:
        command = ["xargs", "-0", "-n", "1", "-a", listing, *command]
        sandbox.run(signing, command, log=log, timeout=_TIMEOUT)


@contextlib.contextmanager
def _listing(folder: Path, files: Sequence[str], log: Path) -> Iterator[str]:
    """Write a list of files by their names inside; raises CommandFailed if signing them fails."""
    listing = folder / _LIST
    listing.write_bytes(b"".join(f"{PACKAGES}/{path}".encode() + b"\0" for path in files))
    try:
        yield f"{PACKAGES}/{_LIST}"
    except CommandFailed as error:
        raise CommandFailed("signing-failed", cause=error.message, log=log) from error
    listing.unlink()


def verify_packages(packages: Sequence[Path], role: Role) -> None:
    """Verify the signature of each package, outside; raises NotTrusted."""
    for path in packages:
        gpkg.metadata(path, role)
