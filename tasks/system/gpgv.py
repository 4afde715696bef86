"""OpenPGP signatures: gpgv, one binary keyring per role, and a strict reading of its status.

gpgv's exit code alone decides nothing: it is 0 for expired and revoked keys, for SHA-1 and for
signatures from the future. The status lines do (GnuPG's doc/DETAILS).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO

from tasks import clock
from tasks.errors import BinmillError, NotTrusted
from tasks.system.command import run

_STRONG_HASHES = {"8", "9", "10"}  # SHA-256, SHA-384, SHA-512 (RFC 4880, 9.4)
_CLOCK_SLACK_SECONDS = 600
_NOT_REVOKED = ("e", "-", "o", "q")  # expired, or nothing more is known of the key
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
_REASONS = {
    "BADSIG": "signature-wrong",
    "EXPSIG": "signature-expired",
    "EXPKEYSIG": "signing-key-expired",
    "REVKEYSIG": "signing-key-revoked",
    "KEYREVOKED": "signing-key-revoked",
    "NO_PUBKEY": "signing-key-unknown",
    "ERRSIG": "signature-unreadable",
    "NODATA": "signature-absent",
}


@dataclass(frozen=True)
class Role:
    """The keys trusted for one kind of file: a key file, and the primaries pinned in it."""

    name: str
    keyfile: Path
    fingerprints: tuple[str, ...]
    # A key that has expired since counts for signatures made before this day and its expiry.
    accept_expired_before: date | None = None


@dataclass(frozen=True)
class Signature:
    """An accepted signature: fingerprint of the primary key, and time of signing (epoch)."""

    signer: str
    signed_at: int


def verify_detached(role: Role, data: BinaryIO, name: str, signature: Path) -> Signature:
    """Accept a detached signature over an open file called `name`; raises NotTrusted."""
    data.seek(0, os.SEEK_END)
    data.seek(0)  # by way of the end: gpgv reads the descriptor, which buffers may be ahead of
    with signature.open("rb") as proof:
        result, _ = _gpgv(role, (proof.fileno(), data.fileno()), name)
    return result


def verify_clearsigned(role: Role, document: Path) -> tuple[Signature, str]:
    """Accept a clearsigned text; returns only the part that was signed, as gpgv prints it."""
    with document.open("rb") as body:
        return _gpgv(role, (body.fileno(),), document.name)


def _gpgv(role: Role, descriptors: Sequence[int], name: str) -> tuple[Signature, str]:
    with (
        _keyring(role) as (home, ring),
        # a file, not a pipe: a few hundred signatures would fill a pipe that is not read yet
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
        keys = _list_keys(home, ring) if role.accept_expired_before else ""
    return check_status(status, done.returncode, role, name, clock.now(), keys=keys), done.stdout


def check_status(
    status: str, returncode: int, role: Role, name: str, now: float, *, keys: str = ""
) -> Signature:
    """Decide by the status lines of gpgv; pure. Raises NotTrusted unless every rule holds.

    `now` is in epoch seconds; `keys` is gpg's listing of the role's keys, needed by a role that
    accepts expired ones. The rules are listed in docs/trust.md.
    """
    try:
        return _accept(status, returncode, role, now, keys)
    except _Refused as refusal:
        raise NotTrusted(
            "signature-not-trusted",
            file=name,
            role=role.name,
            keyfile=role.keyfile,
            reason=refusal.code,
            cause=refusal.message,
        ) from None


class _Refused(BinmillError):
    """A rule does not hold."""


def _accept(status: str, returncode: int, role: Role, now: float, keys: str) -> Signature:
    lines = _status_lines(status)
    if "EXPKEYSIG" in lines and _was_valid(lines, role, keys):
        lines["GOODSIG"] = lines.get("GOODSIG", []) + lines.pop("EXPKEYSIG")
    for word in _FATAL:
        if word in lines:
            raise _fatal(word, lines[word])
    for word in ("NEWSIG", "GOODSIG", "VALIDSIG"):
        if len(lines.get(word, [])) != 1:
            raise _Refused("signature-not-single", status=word, number=len(lines.get(word, [])))
    if returncode != 0:
        raise _Refused("gpgv-failed", status=returncode)
    valid, good = lines["VALIDSIG"][0], lines["GOODSIG"][0]
    # VALIDSIG: fingerprint date timestamp expires version reserved pubkey-algo hash class primary
    if len(valid) < 10 or not good or not valid[0].endswith(good[0]) or not valid[2].isdecimal():
        raise _Refused("gpgv-inconsistent")
    if valid[9] not in role.fingerprints:
        raise _Refused("signing-key-not-pinned", fingerprint=valid[9])
    if valid[7] not in _STRONG_HASHES:
        raise _Refused("signature-hash-weak", algorithm=valid[7])
    if int(valid[2]) > now + _CLOCK_SLACK_SECONDS:
        raise _Refused("signature-from-the-future")
    return Signature(valid[9], int(valid[2]))


def _status_lines(status: str) -> dict[str, list[list[str]]]:
    """Parse status lines: the fields of each line by its keyword."""
    lines: dict[str, list[list[str]]] = {}
    # not splitlines(): a user id may hold U+2028 and what looks like a status line after it
    for line in status.removesuffix("\n").split("\n") if status else []:
        words = line.split()
        if len(words) < 2 or words[0] != "[GNUPG:]":
            raise _Refused("gpgv-line-unknown", line=repr(line[:80]))
        lines.setdefault(words[1], []).append(words[2:])
    return lines


def _fatal(word: str, lines: list[list[str]]) -> _Refused:
    if word == "ERRSIG":  # key pubkey-algo hash class time reason
        for fields in lines:
            if fields[2:] and fields[2] not in _STRONG_HASHES:
                return _Refused("signature-hash-weak", algorithm=fields[2])
    return _Refused(_REASONS.get(word, "gpgv-reports"), status=word)


def _was_valid(lines: dict[str, list[list[str]]], role: Role, keys: str) -> bool:
    """Tell whether the role accepts the signature of this expired key.

    It must be older than the expiry of the key and of its primary, and neither may be revoked:
    of a key that is both, gpgv reports only that it has expired.
    """
    valid = lines.get("VALIDSIG", [[]])[0]
    if role.accept_expired_before is None or len(valid) < 10 or not valid[2].isdecimal():
        return False
    day = role.accept_expired_before
    ends = [int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())]
    for fingerprint in (valid[0], valid[9]):
        matching = [(state, end) for print_, state, end in _keys(keys) if print_ == fingerprint]
        if not matching or any(state not in _NOT_REVOKED for state, _ in matching):
            return False
        ends += [int(end) for _, end in matching if end]
    return int(valid[2]) < min(ends)


def _keys(listing: str) -> Iterator[tuple[str, str, str]]:
    """Yield fingerprint, validity (e: expired, r: revoked) and expiry of keys (doc/DETAILS)."""
    key: list[str] = []
    for line in listing.split("\n"):  # a user id may hold U+2028, but no newline
        fields = line.split(":")
        if fields[0] in ("pub", "sub"):
            key = fields
        elif fields[0] == "fpr":
            yield fields[9], key[1], key[6]


def _list_keys(home: str, ring: str) -> str:
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
    """Yield an empty GnuPG home and a file with the keys in binary form, as gpgv needs them."""
    try:
        keys = role.keyfile.read_bytes()
    except OSError as error:
        raise BinmillError(
            "key-file-unreadable", role=role.name, path=role.keyfile, cause=error.strerror
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
