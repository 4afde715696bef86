"""OpenPGP signatures: gpgv, one binary keyring per role, and a strict reading of its status.

gpgv's exit code alone decides nothing: it is 0 for expired and revoked keys, for SHA-1 and for
signatures from the future. The status lines do (GnuPG's doc/DETAILS).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO

from tasks.errors import BinmillError, NotTrusted
from tasks.system.command import run

_STRONG_HASHES = {"8", "9", "10"}  # SHA-256, SHA-384, SHA-512 (RFC 4880, 9.4)
_CLOCK_SLACK_SECONDS = 600
_NOT_REVOKED = ("e", "-", "o", "q")  # expired, or as a key is of which no more is known
# The most telling first. KEYEXPIRED alone is not here: gpgv prints it for other keys and
# subkeys of a ring, too.
_FATAL = (
    "BADSIG",
    "NO_PUBKEY",
    "REVKEYSIG",
    "KEYREVOKED",
    "EXPKEYSIG",
    "EXPSIG",
    "ERRSIG",
    "NODATA",
    "UNEXPECTED",
    "ERROR",
    "FAILURE",
)
_SAY = {
    "BADSIG": "the signature does not fit the bytes",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key that signed it has expired",
    "REVKEYSIG": "the key that signed it was revoked",
    "KEYREVOKED": "the key that signed it was revoked",
    "NO_PUBKEY": "it is signed by a key that is not in the key file",
    "ERRSIG": "it is signed by a key that is not in the key file, or in an unknown way",
    "NODATA": "there is no signature in it",
}


@dataclass(frozen=True)
class Role:
    """Whom to believe for one kind of file: a key file, and the primaries pinned for it."""

    name: str
    keyfile: Path
    fingerprints: tuple[str, ...]
    # A key that has expired since counts for signatures made before this day and its expiry.
    accept_expired_before: date | None = None


@dataclass(frozen=True)
class Signature:
    """A signature that was accepted: the primary's fingerprint and when it was made (epoch)."""

    signer: str
    made: int


def verify_detached(role: Role, data: BinaryIO, name: str, signature: Path) -> Signature:
    """Accept a detached signature over an open file called `name`; raises NotTrusted."""
    data.seek(0, os.SEEK_END)
    data.seek(0)  # by way of the end: gpgv reads the descriptor, which buffers may be ahead of
    with signature.open("rb") as proof:
        accepted, _ = _gpgv(role, (proof.fileno(), data.fileno()), name)
    return accepted


def verify_clearsigned(role: Role, document: Path) -> tuple[Signature, str]:
    """Accept a clearsigned text and return only what gpgv says was signed."""
    with document.open("rb") as body:
        return _gpgv(role, (body.fileno(),), document.name)


def _gpgv(role: Role, descriptors: Sequence[int], what: str) -> tuple[Signature, str]:
    with (
        _keyring(role) as (home, ring),
        # a file, not a pipe: a few hundred signatures would fill a pipe that nobody empties yet
        os.fdopen(os.memfd_create("binmill-gpgv"), "w+b") as answers,
    ):
        clear = [] if len(descriptors) > 1 else ["--output", "-"]
        done = run(
            "gpgv",
            "--homedir",
            home,
            "--keyring",
            ring,
            "--weak-digest",
            "SHA1",
            "--enable-special-filenames",
            "--status-fd",
            str(answers.fileno()),
            *clear,
            "--",
            *(f"-&{number}" for number in descriptors),
            check=False,
            pass_fds=(*descriptors, answers.fileno()),
            timeout=600,
        )
        answers.seek(0)
        status = answers.read().decode("utf-8", "replace")
        keys = _listing(home, ring) if role.accept_expired_before else ""
    return judge(status, done.returncode, role, what, time.time(), keys=keys), done.stdout


def judge(
    status: str, returncode: int, role: Role, what: str, now: float, *, keys: str = ""
) -> Signature:
    """Decide from gpgv's status lines; pure. Raises NotTrusted unless every rule holds.

    `now` is in epoch seconds; `keys` is gpg's listing of the role's keys, which a role that
    accepts expired ones needs. The rules are listed in docs/trust.md.
    """

    def refuse(reason: str) -> NotTrusted:
        return NotTrusted(
            f"{what} is not trusted as {role.name}: {reason}",
            f"try another mirror, or check the keys in {role.keyfile} and config.toml [keys]",
        )

    lines: dict[str, list[list[str]]] = {}
    # not splitlines(): a user id may hold U+2028 and what looks like a status line after it
    for line in status.removesuffix("\n").split("\n") if status else []:
        words = line.split()
        if len(words) < 2 or words[0] != "[GNUPG:]":
            raise refuse(f"gpgv said something unknown: {line[:80]!r}")
        lines.setdefault(words[1], []).append(words[2:])
    if "EXPKEYSIG" in lines and _was_valid(lines, role, keys):
        lines["GOODSIG"] = lines.get("GOODSIG", []) + lines.pop("EXPKEYSIG")
    for word in _FATAL:
        if word in lines:
            raise refuse(_meaning(word, lines[word]))
    for word in ("NEWSIG", "GOODSIG", "VALIDSIG"):
        if len(lines.get(word, [])) != 1:
            raise refuse(
                f"exactly one good signature is wanted, gpgv saw {word} "
                f"{len(lines.get(word, []))} times"
            )
    if returncode != 0:
        raise refuse(f"gpgv ended with {returncode}")
    valid, good = lines["VALIDSIG"][0], lines["GOODSIG"][0]
    # VALIDSIG: fingerprint date timestamp expires version reserved pubkey-algo hash class primary
    if len(valid) < 10 or not good or not valid[0].endswith(good[0]) or not valid[2].isdecimal():
        raise refuse("gpgv's answer does not fit together")
    if valid[9] not in role.fingerprints:
        raise refuse(f"it is signed by {valid[9]}, which is not pinned for this role")
    if valid[7] not in _STRONG_HASHES:
        raise refuse(_weak(valid[7]))
    if int(valid[2]) > now + _CLOCK_SLACK_SECONDS:
        raise refuse("it was signed in the future; is this machine's clock right?")
    return Signature(valid[9], int(valid[2]))


def _meaning(word: str, said: list[list[str]]) -> str:
    """What a fatal word is to a person, where one of the lines that it came in may say more."""
    if word == "ERRSIG":  # key pubkey-algo hash class time reason
        for fields in said:
            if fields[2:] and fields[2] not in _STRONG_HASHES:
                return _weak(fields[2])
    return _SAY.get(word, f"gpgv reports {word}")


def _weak(algorithm: str) -> str:
    return f"its hash algorithm (number {algorithm}) is too weak"


def _was_valid(lines: dict[str, list[list[str]]], role: Role, keys: str) -> bool:
    """Whether an expired key's signature is one that the role's option is about.

    It must be older than the expiry of the key and of its primary, and neither may be revoked:
    of a key that is both, gpgv says no more than that it has expired.
    """
    valid = lines.get("VALIDSIG", [[]])[0]
    if role.accept_expired_before is None or len(valid) < 10 or not valid[2].isdecimal():
        return False
    day = role.accept_expired_before
    ends = [int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())]
    for wanted in (valid[0], valid[9]):
        found = [(state, end) for print_, state, end in _listed(keys) if print_ == wanted]
        if not found or any(state not in _NOT_REVOKED for state, _ in found):
            return False
        ends += [int(end) for _, end in found if end]
    return int(valid[2]) < min(ends)


def _listed(keys: str) -> Iterator[tuple[str, str, str]]:
    """Fingerprint, validity (e: expired, r: revoked) and expiry of each key (doc/DETAILS)."""
    key: list[str] = []
    for line in keys.split("\n"):  # a user id may hold U+2028, but no newline
        fields = line.split(":")
        if fields[0] in ("pub", "sub"):
            key = fields
        elif fields[0] == "fpr":
            yield fields[9], key[1], key[6]


def _listing(home: str, ring: str) -> str:
    return run(
        "gpg",
        "--homedir",
        home,
        "--batch",
        "--no-options",
        "--with-colons",
        "--show-keys",
        ring,
        check=False,
        timeout=60,
    ).stdout


@contextlib.contextmanager
def _keyring(role: Role) -> Iterator[tuple[str, str]]:
    """An empty GnuPG home and the role's keys in binary form, as gpgv wants them."""
    try:
        keys = role.keyfile.read_bytes()
    except OSError as error:
        raise BinmillError(
            f"the key file of {role.name} cannot be read: {role.keyfile}: {error.strerror}",
            "set `file` in config.toml [keys] to a copy of the keys; docs/keys.md says whence",
        ) from error
    with tempfile.TemporaryDirectory(prefix="binmill-gpg-") as home:
        if keys.lstrip().startswith(b"-----BEGIN"):
            run(
                "gpg",
                "--homedir",
                home,
                "--batch",
                "--no-options",
                "--dearmor",
                "--output",
                f"{home}/ring.gpg",
                input=keys,
                timeout=60,
            )
        else:
            Path(home, "ring.gpg").write_bytes(keys)
        yield home, f"{home}/ring.gpg"
