"""A server on loopback where a function answers each path, well or badly."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Record each request and call the path's function to answer it."""

    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.ranges.append((self.headers.get("Range"), self.headers.get("If-Range")))
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client hangs up, as some tests want
            answers = self.server.answers
            (answers.get(self.path) or answers["*"])(self)

    do_CONNECT = do_GET

    def head(self, status: int, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", *headers, "", ""]
        self.wfile.write("\r\n".join(lines).encode("latin-1"))

    def log_message(self, *_: Any) -> None:
        pass


class ScriptedServer(http.server.ThreadingHTTPServer):
    """`paths` are the requested paths, `ranges` the headers Range and If-Range, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.paths: list[str] = []
        self.ranges: list[tuple[str | None, str | None]] = []
        self.quit = threading.Event()

    def url(self, path: str, answer: Answer | None = None) -> str:
        if answer:
            self.answers[path] = answer
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """The server while the block runs."""
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.quit.set()
            server.shutdown()
            thread.join()


def good(handler: Handler) -> None:
    handler.head(200, "Content-Length: 5")
    handler.wfile.write(b"hello")


def status(number: int, *headers: str) -> Answer:
    return lambda handler: handler.head(number, "Content-Length: 0", *headers)


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other, the last one from then on."""
    left = list(answers)

    def answer(handler: Handler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return answer


def file(
    body: bytes, *headers: str, pieces: int | None = None, validators: tuple[str, ...] = ()
) -> Answer:
    """The answer of a correct server for a file, with Range and If-Range (RFC 9110).

    `pieces`: each answer ends early after so many bytes. `validators` are the accepted values of
    If-Range.
    """

    def answer(handler: Handler) -> None:
        start, wanted = 0, handler.headers.get("Range")
        if wanted and handler.headers.get("If-Range") in validators:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            place = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
            handler.head(206, place, f"Content-Length: {len(body) - start}", *headers)
        else:
            handler.head(200, f"Content-Length: {len(body)}", *headers)
        end = len(body) if pieces is None else start + pieces
        handler.wfile.write(body[start:end])

    return answer


def endless(handler: Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    while True:
        handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")


def stalling(handler: Handler) -> None:
    handler.head(200, "Content-Length: 10")
    handler.wfile.write(b"hello")
    handler.server.quit.wait(30)
