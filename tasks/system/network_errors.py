"""The reason why a request failed: the libraries below wrap and rename the cause."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.errors import DownloadFailed
from tasks.text import one_line, without_password


def explain(error: BaseException, around: BaseException | None = None) -> DownloadFailed:
    """Find the innermost cause of an error of requests or urllib3.

    `around` is the exception that the caller was handling, if any: no cause of this one.
    """
    import socket
    import ssl

    chain = list(_causes(error, around))
    cause, reason = chain[-1], _reason(chain[-1])
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DownloadFailed("certificate-not-trusted", reason=cause.verify_message)
    for host, port in map(_peer, chain):
        if host and isinstance(cause, socket.gaierror):
            return DownloadFailed("host-unknown", host=host, reason=reason)
        if host:  # the mirror's, or the proxy's
            return DownloadFailed("host-unreachable", host=host, port=port, reason=reason)
    return DownloadFailed("request-failed", reason=reason)


def _causes(error: BaseException, around: BaseException | None) -> Iterator[BaseException]:
    from http.client import HTTPException

    seen: list[BaseException | None] = [None, around]
    cause: BaseException | None = error
    while cause is not None and not any(cause is each for each in seen):
        yield cause
        seen.append(cause)
        if isinstance(cause, HTTPException):
            return  # what lies below is how http.client noticed: int() of a chunk's length
        cause = cause.__cause__ or cause.__context__


def _peer(error: BaseException) -> tuple[str, int | None]:
    """Host and port of a connection that could not be made, where the error is about that."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    if isinstance(error, NewConnectionError):
        return error.conn.host, error.conn.port
    if isinstance(error, ConnectTimeoutError):
        connection = error.args[0]
        return getattr(connection, "host", ""), getattr(connection, "port", None)
    return "", None


def _reason(cause: BaseException) -> str:
    """The text of an exception, without object addresses and passwords."""
    words = " ".join(str(getattr(cause, "strerror", None) or cause).split(">: ")[-1].split())
    plain = re.sub(r"[^\s/'\"]*@", "", without_password(one_line(words)))
    return plain[:300] or type(cause).__name__
