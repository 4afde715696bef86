"""The keyring with which Portage verifies signed packages (BINPKG_GPG_VERIFY_GPG_HOME)."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tasks.system.command import run

FOLDER = "gnupg"  # below /etc/portage: the default of BINPKG_GPG_VERIFY_GPG_HOME


@dataclass(frozen=True)
class PublicKey:
    """An OpenPGP key, armored, and the fingerprint of its primary."""

    armored: bytes
    fingerprint: str


def write(key: PublicKey, home: Path) -> None:
    """Make a GnuPG home with one trusted key; readable by all, as Portage verifies as user nobody.

    It is made at a short path: gpg fails if its agent's socket would have more than 107 bytes
    (unix(7)), even when it needs no agent.
    """
    with tempfile.TemporaryDirectory(prefix="binmill-gpg-") as short:
        options = ("gpg", "--homedir", short, "--batch", "--no-autostart")
        trust = f"{key.fingerprint}:6:\n".encode()
        run(*options, "--import", input=key.armored, timeout=60)
        run(*options, "--import-ownertrust", input=trust, timeout=60)
        run(*options, "--check-trustdb", timeout=60)  # else Portage sees TRUST_UNDEFINED
        shutil.copytree(short, home)
    home.chmod(0o755)
    for path in home.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
