"""Downloads from a server on loopback that does everything a mirror should not."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import DownloadFailed
from tasks.system import http as downloads
from tasks.system import terminal
from tasks.system.http import Got, Missing, download, use_proxy
from tests.kit.files import names
from tests.kit.scripted_server import (
    Answer,
    Handler,
    ScriptedServer,
    endless,
    file,
    good,
    in_turn,
    scripted_server,
    stalling,
    status,
)

LIMIT = 100_000


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, without making them."""
    made: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=made.append)
    monkeypatch.setattr(downloads, "time", clock)
    return made


def chunked(handler: Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")


def until_closed(handler: Handler) -> None:
    handler.head(200)
    handler.wfile.write(b"hello")


def compressed(handler: Handler) -> None:
    handler.head(200, "Content-Encoding: gzip", "Content-Length: 5")
    handler.wfile.write(b"hello")


def truncated(handler: Handler) -> None:
    handler.head(200, "Content-Length: 10")
    handler.wfile.write(b"hello")


def truncated_chunk(handler: Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"ff\r\nhello")


def no_last_chunk(handler: Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"5\r\nhello\r\n")


def bad_chunk(handler: Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"zz\r\nhello\r\n")


def endless_redirect(handler: Handler) -> None:
    handler.head(302, "Location: /good", "Transfer-Encoding: chunked")
    while True:
        handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")


def announced_too_large(handler: Handler) -> None:
    handler.head(200, f"Content-Length: {LIMIT + 1}")


def loop(handler: Handler) -> None:
    handler.head(302, "Location: /it", "Content-Length: 0")


def onward(location: str) -> Answer:
    return lambda handler: handler.head(301, f"Location: {location}", "Content-Length: 0")


def hang_up(handler: Handler) -> None:
    handler.connection.close()


def nonsense(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


def odd_length(handler: Handler) -> None:
    handler.head(200, "Content-Length: \xb2")
    handler.wfile.write(b"hello")


def many_headers(handler: Handler) -> None:
    handler.head(200, *(f"X-{number}: 1" for number in range(500)))


def silent(handler: Handler) -> None:
    handler.server.quit.wait(30)


def dripping(handler: Handler) -> None:
    handler.head(200, "Content-Length: 1000")
    while not handler.server.quit.wait(0.05):
        handler.wfile.write(b"x")


def dripping_chunks(handler: Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"1000\r\n")
    while not handler.server.quit.wait(0.05):
        handler.wfile.write(b"x")


@pytest.mark.parametrize("answer", [good, chunked, until_closed, compressed])
def test_it_arrives_as_it_was_sent(server: ScriptedServer, target: Path, answer: Answer) -> None:
    url = server.url("/file", answer)
    assert download([url], target, limit=LIMIT) == Got(url, None)
    assert target.read_bytes() == b"hello"


def test_a_body_of_exactly_the_limit(server: ScriptedServer, target: Path) -> None:
    download([server.url("/file", good)], target, limit=5)
    with pytest.raises(DownloadFailed, match="too large"):
        download([server.url("/file", good)], target, limit=4)


def test_a_large_body_whole(server: ScriptedServer, target: Path) -> None:
    body = bytes(range(256)) * 8192

    def large(handler: Handler) -> None:
        handler.head(200, f"Content-Length: {len(body)}")
        handler.wfile.write(body)

    download([server.url("/file", large)], target, limit=len(body))
    assert target.read_bytes() == body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        # fault 7: 429 and 503, however often it is asked
        (status(503), "HTTP 503"),
        (status(429), "HTTP 429"),
        (status(403), "HTTP 403"),
        (status(206), "HTTP 206"),
        # fault 1: a truncated body
        (truncated, "5 bytes read, 5 more expected|ended after 5 of 10 bytes"),
        (truncated_chunk, "IncompleteRead|Connection broken|bytes read"),
        (no_last_chunk, "IncompleteRead|bytes read"),
        (bad_chunk, "IncompleteRead|bytes read"),
        # fault 4: an endless body without a length
        (endless, f"too large .more than {LIMIT} bytes"),
        (announced_too_large, f"too large .{LIMIT + 1} bytes, at most {LIMIT}"),
        # fault 5: a redirect loop (https to http: in the unit tests)
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
    server: ScriptedServer, target: Path, answer: Answer, reason: str
) -> None:
    bad, second = server.url("/it", answer), server.url("/good", good)
    with pytest.raises(DownloadFailed, match=reason) as failed:
        download([bad], target, limit=LIMIT)
    assert not isinstance(failed.value, Missing)
    assert "\n" not in failed.value.message
    assert " at 0x" not in failed.value.message
    assert failed.value.message.startswith(f"no mirror gave it: {bad}: ")
    assert len(failed.value.message) < 600
    assert names(target.parent) == []
    assert download([bad, second], target, limit=LIMIT) == Got(second, None)
    assert target.read_bytes() == b"hello"


@pytest.mark.parametrize("answer", [silent, stalling, dripping, dripping_chunks])
def test_a_mirror_too_slow_is_passed_over(
    server: ScriptedServer, target: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """Fault 3: a trickle of bytes, then silence."""
    monkeypatch.setattr(downloads, "_IDLE_SECONDS", 0.3)
    bad, second = server.url("/it", answer), server.url("/good", good)
    with pytest.raises(DownloadFailed, match=r"too slow|timed out") as failed:
        download([bad], target, limit=LIMIT)
    assert "\n" not in failed.value.message
    assert names(target.parent) == []
    assert server.paths == ["/it"]
    assert download([bad, second], target, limit=LIMIT).url == second


def test_a_slow_mirror_above_the_rate_is_waited_for(
    server: ScriptedServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_IDLE_SECONDS", 0.4)
    monkeypatch.setattr(downloads, "_MINIMUM_RATE", 1)

    def slow(handler: Handler) -> None:
        handler.head(200, "Content-Length: 10")
        for _ in range(10):
            handler.wfile.write(b"x")
            handler.server.quit.wait(0.06)

    download([server.url("/it", slow)], target, limit=LIMIT)
    assert target.read_bytes() == b"x" * 10


def test_an_odd_length_is_no_length(server: ScriptedServer, target: Path) -> None:
    download([server.url("/it", odd_length)], target, limit=LIMIT)
    assert target.read_bytes() == b"hello"


def test_the_body_of_a_redirect_is_not_read(server: ScriptedServer, target: Path) -> None:
    server.url("/good", good)
    download([server.url("/it", endless_redirect)], target, limit=LIMIT)
    assert target.read_bytes() == b"hello"


def test_a_redirect_is_followed(server: ScriptedServer, target: Path) -> None:
    there = server.url("/good", good)
    for location in ("/good", "good", there):
        download([server.url("/it", onward(location))], target, limit=LIMIT)
        assert target.read_bytes() == b"hello"


@pytest.mark.parametrize("number", [404, 410])
def test_missing_everywhere(server: ScriptedServer, target: Path, number: int) -> None:
    urls = [server.url("/a", status(404)), server.url("/b", status(number))]
    with pytest.raises(Missing, match=f"HTTP 404.*HTTP {number}"):
        download(urls, target, limit=LIMIT)
    assert server.paths == ["/a", "/b"]


def test_missing_here_and_broken_there_is_not_missing(server: ScriptedServer, target: Path) -> None:
    with pytest.raises(DownloadFailed) as failed:
        download(
            [server.url("/a", status(404)), server.url("/b", status(503))], target, limit=LIMIT
        )
    assert not isinstance(failed.value, Missing)


def test_a_busy_mirror_is_asked_again(
    server: ScriptedServer, target: Path, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Fault 7: 429 with Retry-After, 503."""
    busy = in_turn(status(429, "Retry-After: 20"), status(503), good)
    url = server.url("/it", busy).replace("//", "//user:sesame@")
    assert download([url], target, limit=LIMIT) == Got(url, None)
    assert pauses == [20.0, 2.0]
    assert capsys.readouterr().out == "  127.0.0.1 asks to wait 20 s\n"


@pytest.mark.parametrize("number", [429, 502, 503, 504])
def test_a_mirror_that_stays_busy_is_asked_three_times(
    server: ScriptedServer, target: Path, pauses: list[float], number: int
) -> None:
    urls = [server.url("/busy", status(number)), server.url("/good", good)]
    assert download(urls, target, limit=LIMIT).url == urls[1]
    assert server.paths == ["/busy"] * 3 + ["/good"]
    assert pauses == [1.0, 2.0]


@pytest.mark.parametrize(
    ("said", "pause"),
    [
        ("3600", 30),
        ("0", 0),
        ("Wed, 01 Jan 2200 00:00:00 GMT", 30),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 0),
        ("soon", 1),
        ("-5", 1),
        ("9" * 400, 1),
    ],
)
def test_how_long_a_mirror_may_ask_to_wait(
    server: ScriptedServer, target: Path, pauses: list[float], said: str, pause: float
) -> None:
    busy = in_turn(status(503, f"Retry-After: {said}"), good)
    download([server.url("/it", busy)], target, limit=LIMIT)
    assert pauses == [pause]


@pytest.mark.parametrize(
    "answer", [status(404), status(403), status(500), announced_too_large, endless, hang_up, loop]
)
def test_what_another_moment_would_not_change_is_not_asked_again(
    server: ScriptedServer, target: Path, pauses: list[float], answer: Answer
) -> None:
    with pytest.raises(DownloadFailed):
        download([server.url("/it", answer)], target, limit=LIMIT)
    assert len(server.paths) == (11 if answer is loop else 1)
    assert pauses == []


def headers_dripping(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not handler.server.quit.wait(0.05):
        handler.wfile.write(b"X: 1\r\n")


def chunk_size_dripping(handler: Handler) -> None:
    handler.head(200, "Transfer-Encoding: chunked")
    handler.wfile.write(b"5;")
    while not handler.server.quit.wait(0.05):
        handler.wfile.write(b"x")


def tls_dripping(handler: Handler) -> None:
    handler.head(200)
    handler.connection.recv(1)  # the client's hello has come
    handler.wfile.write(b"\x16\x03\x03\x10\x00\x02\x00\x0f\xfc\x03\x03")
    while not handler.server.quit.wait(0.05):
        handler.wfile.write(b"\0")


@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        ("http", headers_dripping),
        ("http", chunk_size_dripping),
        ("https", headers_dripping),  # the proxy's answer to CONNECT
        ("https", tls_dripping),  # the proxy is fine, the handshake behind it is not
    ],
)
def test_what_no_timeout_of_a_socket_ends(
    server: ScriptedServer,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    answer: Answer,
) -> None:
    """Fault 3, where each byte comes in time and the whole never does."""
    monkeypatch.setattr(downloads, "_HEADER_SECONDS", 0.4)
    monkeypatch.setattr(downloads, "_IDLE_SECONDS", 0.4)
    before = signal.getsignal(signal.SIGALRM)
    use_proxy(server.url(""))
    server.answers["*"] = answer
    with pytest.raises(DownloadFailed, match="too slow"):
        download([f"{scheme}://mirror.test/it"], target, limit=LIMIT)
    assert names(target.parent) == []
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_download_outside_of_the_main_thread(server: ScriptedServer, target: Path) -> None:
    url = server.url("/good", good)
    thread = threading.Thread(target=lambda: download([url], target, limit=LIMIT))
    thread.start()
    thread.join()
    assert target.read_bytes() == b"hello"


def test_no_download_takes_forever(
    server: ScriptedServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 3, just above the rate that is wanted."""
    monkeypatch.setattr(downloads, "_TOTAL_SECONDS", 0.3)
    with pytest.raises(DownloadFailed, match="it took more than"):
        download([server.url("/it", dripping)], target, limit=LIMIT)
    assert names(target.parent) == []


def test_all_mirrors_down(server: ScriptedServer, target: Path, pauses: list[float]) -> None:
    """Fault 10: nobody listens."""
    with ScriptedServer() as other:
        nobody = other.url("/x").replace("//", "//user:sesame@")
    place = nobody.split("@")[1].removesuffix("/x")
    with pytest.raises(DownloadFailed) as failed:
        download([nobody, nobody], target, limit=LIMIT)
    reason = f"http://{place}/x: nobody answers at {place} (Connection refused)"
    assert failed.value.message == f"no mirror gave x: {reason}; {reason}"
    assert failed.value.hint
    assert pauses == []
    second = server.url("/good", good)
    assert download([nobody, second], target, limit=LIMIT).url == second


def test_no_name_is_known(
    server: ScriptedServer, target: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    """Fault 10: DNS is dead."""
    second = server.url("/good", good)
    real = socket.getaddrinfo

    def dead(host: str, *more: Any, **words: Any) -> Any:
        if host == "mirror.example":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *more, **words)

    monkeypatch.setattr(socket, "getaddrinfo", dead)
    reason = r"x: the name mirror.example is not known \(Temporary failure in name resolution\)$"
    with pytest.raises(DownloadFailed) as failed:
        download(["https://u:sesame@mirror.example/x"], target, limit=LIMIT)
    assert re.search(reason, failed.value.message)
    assert pauses == []
    assert download(["http://mirror.example/x", second], target, limit=LIMIT).url == second


@pytest.fixture(params=["IP:127.0.0.1", "DNS:mirror.example"])
def certified(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A self-signed certificate, for the server or for another name."""
    pem = tmp_path / "tls.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test",
            "-addext",
            f"subjectAltName={request.param}",
            "-keyout",
            pem,
            "-out",
            tmp_path / "certificate.pem",
        ],
        check=True,
        capture_output=True,
    )
    with pem.open("ab") as out:
        out.write((tmp_path / "certificate.pem").read_bytes())
    return request.param, pem


def test_a_certificate_that_is_not_trusted(
    server: ScriptedServer, target: Path, certified: tuple[str, Path], pauses: list[float]
) -> None:
    """Fault 10: the TLS certificate is wrong."""
    name, pem = certified
    plain = server.url("/good", good)
    with scripted_server() as secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        secure.socket = context.wrap_socket(secure.socket, server_side=True)
        url = secure.url("/good", good).replace("http:", "https:")
        with pytest.raises(
            DownloadFailed, match=r"certificate is not trusted: .*self-signed"
        ) as no:
            download([url], target, limit=LIMIT)
        assert "\n" not in no.value.message
        assert pauses == []
        assert secure.paths == []
        assert download([url, plain], target, limit=LIMIT).url == plain
        os.environ["REQUESTS_CA_BUNDLE"] = str(pem)  # now its signer is trusted
        if name.startswith("IP"):
            assert download([url], target, limit=LIMIT).url == url
        else:
            with pytest.raises(DownloadFailed, match=r"certificate is not trusted: .*mismatch"):
                download([url], target, limit=LIMIT)


def test_through_a_proxy(server: ScriptedServer, target: Path) -> None:
    use_proxy(server.url("").replace("//", "//user:sesame@"), ["other.test"])
    server.answers["*"] = good
    assert download(["http://mirror.test/x"], target, limit=LIMIT).url == "http://mirror.test/x"
    assert server.paths == ["http://mirror.test/x"]
    with pytest.raises(DownloadFailed, match=r"the name \S+other.test is not known"):
        download(["http://no.other.test/x"], target, limit=LIMIT)
    assert len(server.paths) == 1


def test_a_proxy_that_is_down(server: ScriptedServer, target: Path) -> None:
    with ScriptedServer() as other:
        use_proxy(other.url("").replace("//", "//user:sesame@"))
    place = other.url("").removeprefix("http://")
    for scheme in ("http", "https"):
        with pytest.raises(DownloadFailed, match=f"nobody answers at {place}") as failed:
            download([f"{scheme}://mirror.test/x"], target, limit=LIMIT)
        assert "sesame" not in str(failed.value)
    assert server.paths == []


def test_the_reason_is_not_what_the_caller_was_handling(
    server: ScriptedServer, target: Path
) -> None:
    with ScriptedServer() as other:
        nobody = other.url("/x")
    try:
        raise FileNotFoundError(2, "not in the cache")
    except FileNotFoundError:
        with pytest.raises(DownloadFailed, match="Connection refused"):
            download([nobody], target, limit=LIMIT)
    assert server.paths == []


@pytest.mark.parametrize("answer", [status(503), onward("http://user:sesame@[::1/"), hang_up])
def test_a_password_is_in_no_message(server: ScriptedServer, target: Path, answer: Answer) -> None:
    url = server.url("/it", answer).replace("//", "//user:sesame@")
    with pytest.raises(DownloadFailed) as failed:
        download([url], target, limit=LIMIT)
    assert "sesame" not in str(failed.value)


def test_what_a_terminal_would_obey_is_in_no_message(server: ScriptedServer, target: Path) -> None:
    def rude(handler: Handler) -> None:
        handler.wfile.write(b"\x1b]0;mine\x07\x1b[2J\r\n")

    with pytest.raises(DownloadFailed) as failed:
        download([server.url("/it", rude)], target, limit=LIMIT)
    assert failed.value.message.isprintable()


def test_when_the_file_was_made(server: ScriptedServer, target: Path) -> None:
    def dated(handler: Handler) -> None:
        handler.head(200, "Content-Length: 2", "Last-Modified: Thu, 15 Jan 2026 00:45:00 GMT")
        handler.wfile.write(b"ok")

    got = download([server.url("/it", dated)], target, limit=LIMIT)
    assert got.modified == datetime(2026, 1, 15, 0, 45, tzinfo=UTC)


def test_a_long_download_is_told_where_there_is_no_terminal(
    server: ScriptedServer,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(terminal, "_LONG_SECONDS", 0.0)
    large = server.url("/large", file(bytes(2_100_000)))
    download([large], target, limit=1 << 22)
    assert capsys.readouterr().out == "  2.1 MB of file in 0 s\n"
    download([server.url("/small", good)], target, limit=LIMIT)
    monkeypatch.setattr(terminal, "_LONG_SECONDS", 60.0)
    download([large], target, limit=1 << 22)
    assert capsys.readouterr().out == ""


def test_a_missing_directory_is_made_for_its_owner_only(
    server: ScriptedServer, target: Path
) -> None:
    download([server.url("/good", good)], target, limit=LIMIT)
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert names(target.parent) == ["file"]
    target.parent.chmod(0o755)
    download([server.url("/good", good)], target, limit=LIMIT)
    assert target.parent.stat().st_mode & 0o777 == 0o755
