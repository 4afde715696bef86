"""Certificates, made by openssl(1): the site's own CA, those of its clients, and throwaway ones.

The CA is for clients of this site alone and vouches for nothing else. What says that a
certificate opens a door is the list of users, by its serial number: who is not on it has none,
whatever the CA once signed.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from tasks.errors import BinmillError
from tasks.serve.nginx import Tls
from tasks.system.command import run
from tasks.system.files import closed_folder, write_atomic

AUTHORITY = "_ca.pem"  # no user's name begins like that
_KEY = "_ca.key"
MOST_DAYS = 3650
_DAY = 86400
_BARE = ("-config", "/dev/null")  # whatever the machine's openssl.cnf adds
# RFC 5280, 4.2.1: for proving who a client is, and for nothing else
_EXTENSIONS = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
"""


def issue(folder: Path, name: str, days: int) -> tuple[str, str]:
    """Make a key and a certificate for a user, NAME.pem in `folder`, good for `days`.

    Returns its serial number as nginx has it, and the day (ISO 8601, UTC) on which it expires.
    The CA is made by the first call. Raises BinmillError if it would expire before.
    """
    _have_authority(folder, days)
    request = folder / f".{name}.request"
    extensions = folder / ".extensions"
    target = folder / f"{name}.pem"
    # positive and of full length, so that each program prints it in one way (RFC 5280, 4.1.2.2)
    serial = f"{secrets.randbits(126) | 1 << 126:032X}"
    key = _private_key()
    try:
        write_atomic(request, key, mode=0o600)
        write_atomic(extensions, _EXTENSIONS)
        asked = run(
            "openssl", "req", *_BARE, "-new", "-key", request, "-subj", f"/CN={name}", timeout=60
        )
        made = run(
            "openssl",
            "x509",
            "-req",
            "-sha256",
            "-days",
            str(days),
            "-set_serial",
            f"0x{serial}",
            "-CA",
            folder / AUTHORITY,
            "-CAkey",
            folder / _KEY,
            "-extfile",
            extensions,
            input=asked.stdout.encode(),
            timeout=60,
        )
        write_atomic(target, key + made.stdout, mode=0o600)
    finally:
        for scratch in (request, extensions):
            scratch.unlink(missing_ok=True)
    return serial, time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * _DAY))


def withdraw(folder: Path, name: str) -> None:
    """Delete what was made for a user; it counts no more since the user is not on the list."""
    (folder / f"{name}.pem").unlink(missing_ok=True)


def throwaway(folder: Path) -> Tls:
    """A certificate for 127.0.0.1 that vouches for itself: for a server that ends with a block."""
    key, certificate = folder / "server.key", folder / "server.pem"
    write_atomic(key, _private_key(), mode=0o600)
    made = run(
        "openssl",
        "req",
        *_BARE,
        "-x509",
        "-sha256",
        "-key",
        key,
        "-days",
        "30",
        "-subj",
        "/CN=binmill",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        timeout=60,
    )
    write_atomic(certificate, made.stdout)
    return Tls(certificate, key)


def _have_authority(folder: Path, days: int) -> None:
    """Make the CA unless it is there, its certificate last: then both are whole."""
    certificate, key = folder / AUTHORITY, folder / _KEY
    closed_folder(folder)
    if not certificate.exists():
        write_atomic(key, _private_key(), mode=0o600)
        # twice as long as any of a client, so that it is in nobody's way
        made = run(
            "openssl",
            "req",
            *_BARE,
            "-x509",
            "-sha256",
            "-key",
            key,
            "-days",
            str(2 * MOST_DAYS),
            "-subj",
            f"/CN=binmill clients {secrets.token_hex(4)}",
            "-addext",
            "basicConstraints=critical,CA:TRUE,pathlen:0",
            "-addext",
            "keyUsage=critical,keyCertSign",
            "-addext",
            "subjectKeyIdentifier=hash",
            timeout=60,
        )
        write_atomic(certificate, made.stdout)
        return
    lasts = run(
        "openssl",
        "x509",
        "-noout",
        "-checkend",
        str(max(days, 1) * _DAY),
        "-in",
        certificate,
        check=False,
        timeout=60,
    )
    if lasts.returncode != 0 or not key.exists():
        raise BinmillError(
            f"{certificate} is damaged, its key is gone, or it expires within {days} days",
            f"move {folder} away, restart `doit serve`, and add the users of certificates again",
        )


def _private_key() -> str:
    """A key as PEM; through a pipe, so that it is never in a file that others may read."""
    return run(
        "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", timeout=60
    ).stdout
