"""Why a request came to nothing, in words: the libraries below wrap and rename the cause."""

from __future__ import annotations

import re
from collections.abc import Iterator


def explained(error: BaseException, around: BaseException | None = None) -> str:
    """The innermost cause of an error of requests or urllib3, on one line for a person.

    `around` is the exception that the caller was handling, if any: no cause of this one.
    """
    import socket
    import ssl

    chain = list(_causes(error, around))
    said = _said(chain[-1])
    if isinstance(chain[-1], ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted: {chain[-1].verify_message}"
    for host, port in map(_peer, chain):
        if host and isinstance(chain[-1], socket.gaierror):
            return f"the name {host} is not known ({said})"
        if host:  # the mirror's, or the proxy's
            return f"nobody answers at {host}:{port} ({said})"
    return said


def _causes(error: BaseException, around: BaseException | None) -> Iterator[BaseException]:
    from http.client import HTTPException

    seen: list[BaseException | None] = [None, around]
    cause: BaseException | None = error
    while cause is not None and not any(cause is each for each in seen):
        yield cause
        seen.append(cause)
        if isinstance(cause, HTTPException):
            return  # what lies below is how http.client found out: int() of a chunk's length
        cause = cause.__cause__ or cause.__context__


def _peer(error: BaseException) -> tuple[str, int | None]:
    """To whom a connection could not be made, where that is what the error is about."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    if isinstance(error, NewConnectionError):
        return error.conn.host, error.conn.port
    if isinstance(error, ConnectTimeoutError):
        connection = error.args[0]
        return getattr(connection, "host", ""), getattr(connection, "port", None)
    return "", None


def _said(cause: BaseException) -> str:
    """An exception's words, without object addresses, passwords, and what a terminal obeys."""
    words = " ".join(str(getattr(cause, "strerror", None) or cause).split(">: ")[-1].split())
    plain = "".join(sign if sign.isprintable() else "?" for sign in words)
    return re.sub(r"[^\s/'\"]*@", "", plain)[:300] or type(cause).__name__
