"""Packages are signed outside the chroot that built them, by Portage (portage/inside/sign.py).

A key inside a build would be in the hands of every ebuild. The signing sandbox is a throwaway
layer over the verified seed, in which no ebuild has ever run: no network, only the candidate
packages and the key's home are mounted. What comes out is verified again outside.
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
_TIME = 24 * 3600  # seconds


def variables(key: str) -> dict[str, str]:
    """make.conf variables of the signing sandbox (make.conf(5))."""
    return {"BINPKG_GPG_SIGNING_GPG_HOME": KEY_HOME, "BINPKG_GPG_SIGNING_KEY": key}


def public_key(home: Path, key: str | None) -> bytes:
    """The public half of the signing key, armored; raises HostLacks when it cannot sign.

    No gpg-agent is started for that (one would stay behind): a secret key is a file named by its
    keygrip.
    """
    hint = (
        f"make one: mkdir -p -m 700 {home} && gpg --homedir {home} --batch --passphrase '' "
        "--quick-gen-key 'binhost' ed25519 sign 2y; put its fingerprint into "
        "[binhost] signing_key (docs/keys.md)"
    )
    if key is None:
        raise HostLacks("packages are never published unsigned, and no signing key is set", hint)
    if not home.is_dir():
        raise HostLacks(f"the signing key's home {home} does not exist", hint)
    options = ("gpg", "--homedir", home, "--batch", "--no-tty", "--no-autostart")
    listed = run(
        *options, "--with-colons", "--with-keygrip", "--list-keys", key, check=False, timeout=60
    )
    grips = signing_grips(listed.stdout)
    if not any((home / "private-keys-v1.d" / f"{grip}.key").is_file() for grip in grips):
        raise HostLacks(f"the signing key {key} is missing in {home}, expired or revoked", hint)
    return run(*options, "--armor", "--export", key, timeout=60).stdout.encode()


def signing_grips(listing: str) -> list[str]:
    """The keygrips that may sign, of one key in gpg's colon format (GnuPG's doc/DETAILS).

    Field 2 is a key's validity, field 12 what it can do; nothing of a primary that is expired,
    revoked or disabled.
    """
    found: list[str] = []
    able = primary = False
    for line in listing.splitlines():
        row = line.split(":")
        if row[0] in ("pub", "sub"):
            usable = row[1] not in ("e", "r", "i", "d", "n") and "D" not in row[11]
            primary = usable if row[0] == "pub" else primary
            able = primary and usable and "s" in row[11]
        elif row[0] == "grp" and able:
            found.append(row[9])
    return found


def sign(room: Sandbox, folder: Path, packages: Sequence[str], log: Path) -> None:
    """Sign packages (paths below `folder`, which `room` mounts at PACKAGES) in place."""
    with _listed(folder, packages, log) as listing:
        command = ["python3", "-I", PROGRAM_INSIDE, listing]
        sandbox.run(room, command, log=log, timeout=_TIME)


def detached(room: Sandbox, folder: Path, files: Sequence[str], key: str, log: Path) -> None:
    """Make an armored signature FILE.asc beside each of `files`, names in `folder`.

    `room` mounts the folder at PACKAGES. gpg's agent ends with the sandbox, whatever ends that.
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
    with _listed(folder, files, log) as listing:
        command = ["xargs", "-0", "-n", "1", "-a", listing, *command]
        sandbox.run(room, command, log=log, timeout=_TIME)


@contextlib.contextmanager
def _listed(folder: Path, files: Sequence[str], log: Path) -> Iterator[str]:
    """A list of files, as they are called inside; what fails with it is told in one line."""
    listing = folder / _LIST
    listing.write_bytes(b"".join(f"{PACKAGES}/{path}".encode() + b"\0" for path in files))
    try:
        yield f"{PACKAGES}/{_LIST}"
    except CommandFailed as failed:
        raise CommandFailed(
            f"nothing was signed, and nothing is published: {failed.message}",
            f"read {log}; is the key without a passphrase, and has it not expired? (docs/keys.md)",
        ) from failed
    listing.unlink()


def verify(packages: Sequence[Path], role: Role) -> None:
    """Hold each signed package against the key, outside; raises NotTrusted."""
    for path in packages:
        gpkg.metadata(path, role)
