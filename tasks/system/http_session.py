"""The session of requests that downloads use. Imported when one begins: requests costs time."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from tasks.system.deadline import Deadline


class Session(requests.Session):
    """Follows no redirect; its deadline ends connections at any stage, in the block of it."""

    def __init__(self) -> None:
        super().__init__()
        self.deadline = Deadline()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self.deadline))

    def __enter__(self) -> Session:
        self.deadline.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.deadline.__exit__()

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        return None  # requests would read a redirect's body into memory, without a limit


class _Adapter(HTTPAdapter):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def get_connection_with_tls_context(self, *words: Any, **options: Any) -> HTTPConnectionPool:
        """Return the pool of a server or proxy, whose connections are watched from now on."""
        pool = cast(HTTPConnectionPool, super().get_connection_with_tls_context(*words, **options))
        if not issubclass(pool.ConnectionCls, _Watched):
            kinds = (_Watched, pool.ConnectionCls)
            pool.ConnectionCls = type("Watched", kinds, {"deadline": self._deadline})
        return pool


class _Watched(HTTPConnection):
    """A connection that is watched from its first byte: also a proxy's answer, a TLS handshake."""

    deadline: Deadline

    def _new_conn(self) -> socket.socket:
        self.socket_options = _Options(self.deadline, self.socket_options or ())
        connection = super()._new_conn()
        self.deadline.watch(connection)
        return connection

    def _tunnel(self) -> None:
        super()._tunnel()
        if self.deadline.passed:  # the end of the connection looked like the end of the headers
            raise TimeoutError


class _Options(list[Any]):
    """Options for each address of a host that urllib3 tries; none is tried after the deadline."""

    def __init__(self, deadline: Deadline, options: Iterable[Any]) -> None:
        super().__init__(options)
        self._deadline = deadline

    def __iter__(self) -> Iterator[Any]:
        if self._deadline.passed:
            raise TimeoutError
        return super().__iter__()
