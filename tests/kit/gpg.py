"""GnuPG homes with keys of every kind, and their signatures."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DATA = b"the bytes of a snapshot\n"
YEAR = 365 * 86400
KEYS_CREATED = 1717200000  # 2024-06-01 00:00 UTC
KEYS_EXPIRED = 1768867200  # 2026-01-20 00:00 UTC
BEFORE_EXPIRY = KEYS_EXPIRED - 2 * 86400


@dataclass(frozen=True)
class Gpg:
    """A GnuPG home of the test session, with one key of each kind."""

    home: Path

    def __call__(self, *arguments: str | Path, stdin: bytes = b"", at: float = 0) -> bytes:
        clock = ["--faked-system-time", f"{int(at)}!"] if at else []
        return subprocess.run(
            [
                "gpg",
                "--homedir",
                self.home,
                "--batch",
                "--quiet",
                "--no-options",
                "--yes",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
                *clock,
                *arguments,
            ],
            input=stdin,
            capture_output=True,
            check=True,
        ).stdout

    def new(self, name: str, *, expires: str = "never", at: float = 0) -> None:
        self("--quick-gen-key", f"{name} <{name}@test.example>", "ed25519", "sign", expires, at=at)

    def fingerprint(self, name: str) -> str:
        return _fingerprint(self, name)

    def sign(self, *how: str, who: str, data: bytes = DATA, at: float = 0) -> bytes:
        users = [word for name in who.split() for word in ("-u", self.fingerprint(name) + "!")]
        return self(*users, "--output", "-", *(how or ("--detach-sign",)), stdin=data, at=at)


@functools.cache
def _fingerprint(gpg: Gpg, name: str) -> str:
    lines = gpg("--with-colons", "--list-keys", f"={name} <{name}@test.example>").decode()
    return next(x.split(":")[9] for x in lines.splitlines() if x.startswith("fpr:"))


@dataclass(frozen=True)
class Keys(Gpg):
    """Keys of every kind, named after their state in the key file `ring`, which lacks `stranger`.

    All were created at KEYS_CREATED and can still sign: in the ring `expired` and `lapsed` expire
    at KEYS_EXPIRED (`lapsed` is also revoked), but in this home their expiry was removed later.
    """

    @property
    def ring(self) -> Path:
        return self.home / "ring.gpg"

    def fill(self, public: Gpg) -> None:
        """Create all keys; revocations and expiry dates reach the ring through `public`."""
        for name in ("good", "other", "stranger", "revoked"):
            self.new(name, at=KEYS_CREATED)
        for name in ("expired", "lapsed"):
            self.new(name, expires=f"seconds={KEYS_EXPIRED - KEYS_CREATED}", at=KEYS_CREATED)
        self(
            "--cert-digest-algo",
            "SHA1",
            "--quick-gen-key",
            "weak <weak@test.example>",
            "ed25519",
            "sign",
            "never",
            at=KEYS_CREATED,
        )
        public_names = ("good", "other", "revoked", "expired", "lapsed", "weak")
        public("--import", stdin=self("--export", *map(self.fingerprint, public_names)))
        for name in ("revoked", "lapsed"):
            revocation = self.home / "openpgp-revocs.d" / f"{self.fingerprint(name)}.rev"
            # gpg puts a colon before the armor against an import by accident
            text = revocation.read_bytes().replace(b":-----BEGIN", b"-----BEGIN")
            public("--import", stdin=text)
        self.ring.write_bytes(public("--export"))
        for name in ("expired", "lapsed"):
            self("--quick-set-expire", self.fingerprint(name), "never", at=KEYS_EXPIRED - 86400)


@contextlib.contextmanager
def keys_of_every_kind(folder: Path) -> Iterator[Keys]:
    """Keys of every kind in two GnuPG homes below a folder."""
    keys, public = Keys(folder / "secret"), Gpg(folder / "public")
    for each in (keys, public):
        each.home.mkdir(mode=0o700)
    try:
        keys.fill(public)
        yield keys
    finally:
        for each in (keys, public):
            subprocess.run(["gpgconf", "--homedir", each.home, "--kill", "all"], check=True)
