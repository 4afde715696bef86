"""Certificates by openssl(1): the site's own CA, those of its clients, and self-signed ones.

The CA is for clients of this site alone. A certificate gives access only while its serial number
is in the list of users; a signature of the CA alone gives none.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from tasks import clock
from tasks.errors import BinmillError
from tasks.serve.nginx import Tls
from tasks.system.command import Argument, Done, run
from tasks.system.files import private_folder, write_atomic

CA_FILE = "_ca.pem"  # the name of a user does not begin with _
_KEY = "_ca.key"
MAX_DAYS = 3650
_DAY = 86400
# RFC 5280, 4.2.1: a client certificate identifies a client and is good for nothing else
_EXTENSIONS = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
"""


@dataclass(frozen=True)
class Certificate:
    """A client's certificate: its serial number as nginx writes it, and its last day.

    `expires` is a date by ISO 8601, in UTC.
    """

    serial: str
    expires: str


def issue(folder: Path, name: str, days: int) -> Certificate:
    """Write a key and a certificate for a user to NAME.pem in `folder`, valid for `days`.

    The first call makes the CA. Raises BinmillError if the CA cannot sign for so long.
    """
    _ensure_ca(folder, days)
    request, extensions = folder / f".{name}.request", folder / ".extensions"
    # positive and of full length, so that each program prints it in one way (RFC 5280, 4.1.2.2)
    serial = f"{secrets.randbits(126) | 1 << 126:032X}"
    key = _private_key()
    try:
        write_atomic(request, key, mode=0o600)
        write_atomic(extensions, _EXTENSIONS)
        to_sign = _request("-new", "-key", request, "-subj", f"/CN={name}")
        ca = ("-CA", folder / CA_FILE, "-CAkey", folder / _KEY, "-extfile", extensions)
        numbers = ("-days", str(days), "-set_serial", f"0x{serial}")
        certificate = _openssl("x509", "-req", "-sha256", *numbers, *ca, text=to_sign)
        write_atomic(folder / f"{name}.pem", key + certificate.stdout, mode=0o600)
    finally:
        for scratch in (request, extensions):
            scratch.unlink(missing_ok=True)
    expires = time.strftime("%Y-%m-%d", time.gmtime(clock.now() + days * _DAY))
    return Certificate(serial, expires)


def delete(folder: Path, name: str) -> None:
    """Delete a user's certificate. A copy of it is of no use without its entry in the list."""
    (folder / f"{name}.pem").unlink(missing_ok=True)


def self_signed(folder: Path) -> Tls:
    """Make a self-signed certificate for 127.0.0.1, for a server that ends with a block."""
    key, certificate = folder / "server.key", folder / "server.pem"
    write_atomic(key, _private_key(), mode=0o600)
    address = ("-addext", "subjectAltName=IP:127.0.0.1")
    write_atomic(certificate, _self_signed(key, 30, "binmill", *address))
    return Tls(certificate, key)


def check_tls(tls: Tls) -> None:
    """Raise BinmillError for a certificate that has expired, or a file that cannot be read."""
    for setting, file in (("certificate", tls.certificate), ("certificate_key", tls.key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise BinmillError(
                "tls-file-unreadable", path=file, reason=error.strerror, setting=setting
            ) from error
    words = ("-noout", "-enddate", "-checkend", "0", "-in", tls.certificate)
    answer = _openssl("x509", *words, check=False)
    ends = [line.partition("=")[2] for line in answer.stdout.splitlines() if "notAfter=" in line]
    if not ends:
        raise BinmillError("tls-certificate-not-pem", path=tls.certificate)
    if answer.returncode != 0:
        raise BinmillError("tls-certificate-expired", path=tls.certificate, expired=ends[0])


def _ensure_ca(folder: Path, days: int) -> None:
    """Make the CA unless it exists, its certificate last: where that is, the key is complete."""
    certificate, key = folder / CA_FILE, folder / _KEY
    private_folder(folder)
    if not certificate.exists():
        write_atomic(key, _private_key(), mode=0o600)
        extensions = (
            *("-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"),
            *("-addext", "keyUsage=critical,keyCertSign"),
            *("-addext", "subjectKeyIdentifier=hash"),
        )
        # valid twice as long as any client's, so that it does not expire before one of them
        name = f"binmill clients {secrets.token_hex(4)}"
        write_atomic(certificate, _self_signed(key, 2 * MAX_DAYS, name, *extensions))
        return
    if not key.exists():
        raise BinmillError("client-ca-without-key", path=key, folder=folder)
    seconds = str(max(days, 1) * _DAY)
    words = ("-noout", "-checkend", seconds, "-in", certificate)
    if _openssl("x509", *words, check=False).returncode != 0:
        raise BinmillError("client-ca-unusable", path=certificate, days=days, folder=folder)


def _self_signed(key: Path, days: int, name: str, *extensions: str) -> str:
    """A certificate for a key, signed by that key, as PEM."""
    validity = ("-days", str(days), "-subj", f"/CN={name}")
    return _request("-x509", "-sha256", "-key", key, *validity, *extensions)


def _private_key() -> str:
    """A new key as PEM. It comes through a pipe: no file has it that others could read."""
    return _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256").stdout


def _request(*words: Argument) -> str:
    """The output of `openssl req`, without anything that the machine's openssl.cnf would add."""
    return _openssl("req", "-config", "/dev/null", *words).stdout


def _openssl(*words: Argument, text: str = "", check: bool = True) -> Done:
    return run("openssl", *words, input=text.encode(), check=check, timeout=60)
