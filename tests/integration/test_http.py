"""Downloads from a server on loopback that does everything a mirror should not."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import DownloadFailed
from tasks.system import http as downloads
from tasks.system.http import Missing, download

LIMIT = 100_000
Answer = Callable[["_Handler"], None]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hostile

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client hangs up: that is what is tested
            self.server.answers[self.path](self)

    def head(self, status: int, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", *headers, "", ""]
        self.wfile.write("\r\n".join(lines).encode("latin-1"))

    def log_message(self, *_: Any) -> None:
        pass


class Hostile(http.server.ThreadingHTTPServer):
    """A server whose every path is a function that writes what it likes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.quit = threading.Event()

    def url(self, path: str, answer: Answer | None = None) -> str:
        if answer:
            self.answers[path] = answer
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Hostile() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.quit.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "private" / "file"


def good(handler: _Handler) -> None:
    handler.head(200, "Content-Length: 5")
    handler.wfile.write(b"hello")


def chunked(handler: _Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")


def until_closed(handler: _Handler) -> None:
    handler.head(200)
    handler.wfile.write(b"hello")


def compressed(handler: _Handler) -> None:
    handler.head(200, "Content-Encoding: gzip", "Content-Length: 5")
    handler.wfile.write(b"hello")


def gone(status: int) -> Answer:
    return lambda handler: handler.head(status, "Content-Length: 0", "Retry-After: 3600")


def truncated(handler: _Handler) -> None:
    handler.head(200, "Content-Length: 10")
    handler.wfile.write(b"hello")


def truncated_chunk(handler: _Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"ff\r\nhello")


def no_last_chunk(handler: _Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"5\r\nhello\r\n")


def bad_chunk(handler: _Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"zz\r\nhello\r\n")


def endless(handler: _Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    while True:
        handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")


def endless_redirect(handler: _Handler) -> None:
    handler.head(302, "Location: /good", "Transfer-Encoding: chunked")
    while True:
        handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")


def announced_too_large(handler: _Handler) -> None:
    handler.head(200, f"Content-Length: {LIMIT + 1}")


def loop(handler: _Handler) -> None:
    handler.head(302, "Location: /it", "Content-Length: 0")


def onward(location: str) -> Answer:
    return lambda handler: handler.head(301, f"Location: {location}", "Content-Length: 0")


def hang_up(handler: _Handler) -> None:
    handler.connection.close()


def nonsense(handler: _Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


def odd_length(handler: _Handler) -> None:
    handler.head(200, "Content-Length: \xb2")
    handler.wfile.write(b"hello")


def many_headers(handler: _Handler) -> None:
    handler.head(200, *(f"X-{number}: 1" for number in range(500)))


def silent(handler: _Handler) -> None:
    handler.server.quit.wait(30)


def stalling(handler: _Handler) -> None:
    handler.head(200, "Content-Length: 10")
    handler.wfile.write(b"hello")
    handler.server.quit.wait(30)


def dripping(handler: _Handler) -> None:
    handler.head(200, "Content-Length: 1000")
    while not handler.server.quit.wait(0.05):
        handler.wfile.write(b"x")


def dripping_chunks(handler: _Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"1000\r\n")
    while not handler.server.quit.wait(0.05):
        handler.wfile.write(b"x")


@pytest.mark.parametrize("answer", [good, chunked, until_closed, compressed])
def test_it_arrives_as_it_was_sent(server: Hostile, target: Path, answer: Answer) -> None:
    url = server.url("/file", answer)
    assert download([url], target, limit=LIMIT) == url
    assert target.read_bytes() == b"hello"


def test_a_body_of_exactly_the_limit(server: Hostile, target: Path) -> None:
    download([server.url("/file", good)], target, limit=5)
    with pytest.raises(DownloadFailed, match="too large"):
        download([server.url("/file", good)], target, limit=4)


def test_a_large_body_whole(server: Hostile, target: Path) -> None:
    body = bytes(range(256)) * 8192

    def large(handler: _Handler) -> None:
        handler.head(200, f"Content-Length: {len(body)}")
        handler.wfile.write(body)

    download([server.url("/file", large)], target, limit=len(body))
    assert target.read_bytes() == body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (gone(503), "HTTP 503"),
        (gone(429), "HTTP 429"),
        (gone(403), "HTTP 403"),
        (gone(206), "HTTP 206"),
        (truncated, "5 bytes read, 5 more expected|ended after 5 of 10 bytes"),
        (truncated_chunk, "IncompleteRead|Connection broken|bytes read"),
        (no_last_chunk, "IncompleteRead|bytes read"),
        (bad_chunk, "IncompleteRead|bytes read"),
        (endless, f"too large .more than {LIMIT} bytes"),
        (announced_too_large, f"too large .{LIMIT + 1} bytes, at most {LIMIT}"),
        (loop, "redirects more than 10 times"),
        (onward("file:///etc/passwd"), "No connection adapters"),
        (onward("http://[::1"), "."),
        (onward("http://" + "a" * 64 + ".example/"), "."),
        (onward("http://127.0.0.1:99999/"), "."),
        (hang_up, "."),
        (nonsense, "."),
        (many_headers, "."),
    ],
)
def test_a_mirror_that_fails_is_passed_over(
    server: Hostile, target: Path, answer: Answer, reason: str
) -> None:
    bad, second = server.url("/it", answer), server.url("/good", good)
    with pytest.raises(DownloadFailed, match=reason) as failed:
        download([bad], target, limit=LIMIT)
    assert not isinstance(failed.value, Missing)
    assert "\n" not in failed.value.message
    assert " at 0x" not in failed.value.message
    assert failed.value.message.startswith(f"no mirror gave it: {bad}: ")
    assert len(failed.value.message) < 600
    assert not target.exists()
    assert download([bad, second], target, limit=LIMIT) == second
    assert target.read_bytes() == b"hello"


@pytest.mark.parametrize("answer", [silent, stalling, dripping, dripping_chunks])
def test_a_mirror_too_slow_is_passed_over(
    server: Hostile, target: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(downloads, "_IDLE_SECONDS", 0.3)
    with pytest.raises(DownloadFailed, match=r"too slow|timed out") as failed:
        download([server.url("/it", answer)], target, limit=LIMIT)
    assert "\n" not in failed.value.message
    assert not target.exists()


def test_a_slow_mirror_above_the_rate_is_waited_for(
    server: Hostile, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(downloads, "_MINIMUM_RATE", 1)

    def slow(handler: _Handler) -> None:
        handler.head(200, "Content-Length: 10")
        for _ in range(10):
            handler.wfile.write(b"x")
            handler.server.quit.wait(0.04)

    download([server.url("/it", slow)], target, limit=LIMIT)
    assert target.read_bytes() == b"x" * 10


def test_an_odd_length_is_no_length(server: Hostile, target: Path) -> None:
    with contextlib.suppress(DownloadFailed):
        download([server.url("/it", odd_length)], target, limit=LIMIT)
        assert target.read_bytes() == b"hello"


def test_the_body_of_a_redirect_is_not_read(server: Hostile, target: Path) -> None:
    server.url("/good", good)
    download([server.url("/it", endless_redirect)], target, limit=LIMIT)
    assert target.read_bytes() == b"hello"


def test_a_redirect_is_followed(server: Hostile, target: Path) -> None:
    there = server.url("/good", good)
    for location in ("/good", "good", there):
        download([server.url("/it", onward(location))], target, limit=LIMIT)
        assert target.read_bytes() == b"hello"


@pytest.mark.parametrize("status", [404, 410])
def test_missing_everywhere(server: Hostile, target: Path, status: int) -> None:
    urls = [server.url("/a", gone(404)), server.url("/b", gone(status))]
    with pytest.raises(Missing, match=f"HTTP 404.*HTTP {status}"):
        download(urls, target, limit=LIMIT)
    assert server.asked == ["/a", "/b"]


def test_missing_here_and_broken_there_is_not_missing(server: Hostile, target: Path) -> None:
    with pytest.raises(DownloadFailed) as failed:
        download([server.url("/a", gone(404)), server.url("/b", gone(503))], target, limit=LIMIT)
    assert not isinstance(failed.value, Missing)


def test_nobody_listens(server: Hostile, target: Path) -> None:
    with Hostile() as other:
        nobody = other.url("/x")
    with pytest.raises(DownloadFailed, match="Connection refused"):
        download([nobody], target, limit=LIMIT)
    assert download([nobody, server.url("/good", good)], target, limit=LIMIT).endswith("/good")


def test_the_reason_is_not_what_the_caller_was_handling(server: Hostile, target: Path) -> None:
    with Hostile() as other:
        nobody = other.url("/x")
    try:
        raise FileNotFoundError(2, "not in the cache")
    except FileNotFoundError:
        with pytest.raises(DownloadFailed, match="Connection refused"):
            download([nobody], target, limit=LIMIT)
    assert server.asked == []


@pytest.mark.parametrize("answer", [gone(503), onward("http://user:sesame@[::1/"), hang_up])
def test_a_password_is_in_no_message(server: Hostile, target: Path, answer: Answer) -> None:
    url = server.url("/it", answer).replace("//", "//user:sesame@")
    with pytest.raises(DownloadFailed) as failed:
        download([url], target, limit=LIMIT)
    assert "sesame" not in str(failed.value)
