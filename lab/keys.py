"""The lab's OpenPGP keys: one per role, generated and used by the real gpg.

Like Gentoo's, each is a primary key that certifies and a subkey that signs.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.upstream import ROLES, Upstream
from tasks.errors import BinmillError
from tasks.system.command import run
from tasks.system.files import write_atomic


def make_keys(lab: Upstream) -> None:
    """Generate the private keys that are missing, and export the public ones."""
    lab.keyring.mkdir(parents=True, exist_ok=True, mode=0o700)
    lab.keyring.chmod(0o700)
    with _home(lab) as home:
        for role in ROLES:
            if lab.key(role).exists():
                continue
            if not _fingerprints(home, role):
                _gpg(home, "--quick-gen-key", _owner(role), "ed25519", "cert", "never")
            primary, *subkeys = _fingerprints(home, role)
            if not subkeys:
                _gpg(home, "--quick-add-key", primary, "ed25519", "sign", "never")
            write_atomic(lab.key(role), _gpg(home, "--armor", "--export", primary))


def fingerprint(lab: Upstream, role: str) -> str:
    """Return the primary fingerprint of a role's key, 40 upper-case hex digits."""
    with _home(lab) as home:
        return _fingerprints(home, role)[0]


def sign_detached(lab: Upstream, role: str, file: Path, signature: Path) -> None:
    """Write an armored detached signature over `file`."""
    with _home(lab) as home:
        armored = _gpg(home, *_as(role), "--armor", "--detach-sign", "--output", "-", str(file))
    write_atomic(signature, armored)


def sign_clear(lab: Upstream, role: str, text: str) -> str:
    """Return the text in an OpenPGP cleartext signature (RFC 9580, section 7)."""
    with _home(lab) as home:
        return _gpg(home, *_as(role), "--clearsign", "--output", "-", text=text)


def _owner(role: str) -> str:
    return f"binmill lab {role} <{role}@lab.invalid>"


def _as(role: str) -> tuple[str, ...]:
    return ("--local-user", f"={_owner(role)}", "--digest-algo", "SHA512")


@contextlib.contextmanager
def _home(lab: Upstream) -> Iterator[Path]:
    # gpg-agent's socket is in the home, and the path of a socket has at most 107 bytes (unix(7)),
    # so gpg gets the keyring through a short link.
    with tempfile.TemporaryDirectory(prefix="lab-gpg-") as folder:
        home = Path(folder) / "h"
        home.symlink_to(lab.keyring.resolve())
        try:
            yield home
        finally:
            run("gpgconf", "--homedir", home, "--kill", "all", env=_environment())


def _gpg(home: Path, *arguments: str, text: str | None = None) -> str:
    result = run(
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--no-tty",
        "--quiet",
        "--pinentry-mode",
        "loopback",
        "--passphrase",
        "",
        *arguments,
        input=text.encode() if text is not None else None,
        env=_environment(),
        timeout=120,
    )
    return result.stdout


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}


def _fingerprints(home: Path, role: str) -> list[str]:
    # no check: gpg fails when there is no such key, and then the list is empty
    result = run(
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--with-colons",
        "--list-secret-keys",
        f"={_owner(role)}",
        env=_environment(),
        check=False,
    )
    lines = (line.split(":") for line in result.stdout.splitlines())
    fingerprints = [fields[9] for fields in lines if fields[0] == "fpr"]
    if any(len(each) != 40 for each in fingerprints):
        raise BinmillError("lab-key-version", role=role)
    return fingerprints
