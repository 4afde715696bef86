"""Compare the packages that a server sends with their index, without Portage.

An upgrade does not fetch a package that is installed already. Portage has verified the signature of
these very bytes when it installed them; here they are fetched as new clients fetch them.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import quote, urlsplit

from tasks.errors import NotTrusted

Stanza = Mapping[str, str]
_TIMEOUT = 60  # seconds without an answer
_CHUNK = 1 << 20


@dataclass(frozen=True)
class View:
    """The URL of a view, and what its server needs: a user with a password, over TLS."""

    url: str
    certificate: str = ""
    user: str = ""
    password: str = ""


def verify(view: View, stanzas: Iterable[Stanza]) -> None:
    """Fetch packages; raises NotTrusted for one that is not served as its index says."""
    connection = _connection(view)
    basic = base64.b64encode(f"{view.user}:{view.password}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"} if view.user else {}
    url = view.url
    try:
        for stanza in stanzas:
            url = f"{view.url}/{stanza['PATH']}"
            connection.request("GET", quote(urlsplit(url).path, safe="/@"), headers=headers)
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise NotTrusted("package-not-served", url=url, cause=f"{answer.status}")
            if _digest(answer, int(stanza["SIZE"])) != stanza["SHA512"]:
                raise NotTrusted("package-served-differs", url=url)
    except (OSError, HTTPException) as error:
        cause = str(error) or type(error).__name__
        raise NotTrusted("package-not-served", url=url, cause=cause) from error
    finally:
        connection.close()


def _connection(view: View) -> HTTPConnection:
    place = urlsplit(view.url).netloc
    if not view.certificate:
        return HTTPConnection(place, timeout=_TIMEOUT)
    context = ssl.create_default_context(cadata=view.certificate)
    return HTTPSConnection(place, timeout=_TIMEOUT, context=context)


def _digest(answer: HTTPResponse, size: int) -> str:
    """The SHA-512 of an answer; "" for one of another size, of which no more is read."""
    digest, left = hashlib.sha512(), size
    while data := answer.read(min(_CHUNK, left + 1)):
        left -= len(data)
        if left < 0:
            return ""
        digest.update(data)
    return digest.hexdigest() if left == 0 else ""
