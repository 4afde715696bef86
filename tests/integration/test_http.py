"""Downloads from a server on loopback that does everything a mirror should not do."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.errors import DownloadFailed
from tasks.system import http as downloads
from tasks.system import progress
from tasks.system.http import Download, NotOnMirrors, download
from tasks.system.proxy import use_proxy
from tests.kit.files import names
from tests.kit.refused import refused
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
    """The pauses between attempts, in seconds; none is really made."""
    seconds: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=seconds.append)
    monkeypatch.setattr(downloads, "time", clock)
    return seconds


Fetch = Callable[..., Download]


def in_a_thread(urls: Sequence[str], target: Path, *, limit: int) -> Download:
    """Download outside the main thread, where no signal handler runs."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(download, urls, target, limit=limit).result()


@pytest.fixture(params=[download, in_a_thread])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """Download in the main thread, or in another one."""
    function: Fetch = request.param
    return function


@contextlib.contextmanager
def failing(*codes: str) -> Iterator[pytest.ExceptionInfo[DownloadFailed]]:
    """Expect a download that fails at each of its URLs for these reasons, on one line."""
    with refused(DownloadFailed, "download-failed", codes=list(codes)) as excinfo:
        yield excinfo
    assert excinfo.value.message.isprintable()
    assert " at 0x" not in excinfo.value.message
    assert len(excinfo.value.message) < 600


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
def test_download_keeps_the_body_as_sent(
    server: ScriptedServer, target: Path, answer: Answer
) -> None:
    url = server.url("/file", answer)
    assert download([url], target, limit=LIMIT) == Download(url, None)
    assert target.read_bytes() == b"hello"


def test_download_accepts_a_body_of_exactly_the_limit(server: ScriptedServer, target: Path) -> None:
    download([server.url("/file", good)], target, limit=5)
    with failing("mirror-file-too-large"):
        download([server.url("/file", good)], target, limit=4)


def test_download_of_a_large_body_is_complete(server: ScriptedServer, target: Path) -> None:
    body = bytes(range(256)) * 8192

    def large(handler: Handler) -> None:
        handler.head(200, f"Content-Length: {len(body)}")
        handler.wfile.write(body)

    download([server.url("/file", large)], target, limit=len(body))
    assert target.read_bytes() == body


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (status(503), "mirror-status"),
        (status(429), "mirror-status"),
        (status(403), "mirror-status"),
        (status(206), "mirror-status"),
        (truncated, "mirror-truncated|request-failed"),
        (truncated_chunk, "request-failed"),
        (no_last_chunk, "request-failed"),
        (bad_chunk, "request-failed"),
        (endless, "mirror-file-endless"),
        (announced_too_large, "mirror-file-too-large"),
        (loop, "mirror-redirects"),  # from https to http: see the unit tests
        (onward("file:///etc/passwd"), "request-failed"),
        (onward("http://[::1"), "mirror-redirect-invalid"),
        (onward("http://" + "a" * 64 + ".example/"), "request-failed"),
        (onward("http://127.0.0.1:99999/"), "request-failed"),
        (hang_up, "request-failed"),
        (nonsense, "request-failed"),
        (many_headers, "request-failed"),
    ],
)
def test_download_skips_a_mirror_that_fails(
    server: ScriptedServer, target: Path, answer: Answer, code: str
) -> None:
    bad, second = server.url("/it", answer), server.url("/good", good)
    with pytest.raises(DownloadFailed) as excinfo:
        download([bad], target, limit=LIMIT)
    (error_code,) = cast(list[str], excinfo.value.fields["codes"])
    assert re.fullmatch(code, error_code)
    assert not isinstance(excinfo.value, NotOnMirrors)
    assert excinfo.value.message.isprintable()
    assert " at 0x" not in excinfo.value.message
    assert excinfo.value.message.startswith(f"no mirror delivered it: {bad}: ")
    assert len(excinfo.value.message) < 600
    assert names(target.parent) == []
    assert download([bad, second], target, limit=LIMIT) == Download(second, None)
    assert target.read_bytes() == b"hello"


@pytest.mark.parametrize("answer", [silent, stalling, dripping, dripping_chunks])
def test_download_skips_a_mirror_that_is_too_slow(
    server: ScriptedServer,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    fetch: Fetch,
    answer: Answer,
) -> None:
    monkeypatch.setattr(downloads, "_IDLE_SECONDS", 0.3)
    bad, second = server.url("/it", answer), server.url("/good", good)
    with pytest.raises(DownloadFailed) as excinfo:
        fetch([bad], target, limit=LIMIT)
    # the time limit of a single read may be the first to notice
    assert excinfo.value.fields["codes"] in (["mirror-slow"], ["request-failed"])
    assert names(target.parent) == []
    assert server.paths == ["/it"]
    assert fetch([bad, second], target, limit=LIMIT).url == second


def test_download_from_a_slow_mirror_above_the_minimum_rate_succeeds(
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


def test_download_ignores_an_invalid_length(server: ScriptedServer, target: Path) -> None:
    download([server.url("/it", odd_length)], target, limit=LIMIT)
    assert target.read_bytes() == b"hello"


def test_download_does_not_read_the_body_of_a_redirect(
    server: ScriptedServer, target: Path
) -> None:
    server.url("/good", good)
    download([server.url("/it", endless_redirect)], target, limit=LIMIT)
    assert target.read_bytes() == b"hello"


def test_download_follows_redirects(server: ScriptedServer, target: Path) -> None:
    there = server.url("/good", good)
    for location in ("/good", "good", there):
        download([server.url("/it", onward(location))], target, limit=LIMIT)
        assert target.read_bytes() == b"hello"


@pytest.mark.parametrize("number", [404, 410])
def test_file_that_no_mirror_has_is_missing(
    server: ScriptedServer, target: Path, number: int
) -> None:
    urls = [server.url("/a", status(404)), server.url("/b", status(number))]
    with refused(NotOnMirrors, "not-on-mirrors", file="a") as missing:
        download(urls, target, limit=LIMIT)
    assert re.search(f"HTTP 404.*HTTP {number}", missing.value.message)
    assert server.paths == ["/a", "/b"]


def test_file_is_not_missing_where_a_mirror_is_broken(server: ScriptedServer, target: Path) -> None:
    with failing("mirror-lacks-file", "mirror-status"):
        download(
            [server.url("/a", status(404)), server.url("/b", status(503))], target, limit=LIMIT
        )


def test_download_waits_for_a_busy_mirror(
    server: ScriptedServer, target: Path, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    busy = in_turn(status(429, "Retry-After: 20"), status(503), good)
    url = server.url("/it", busy).replace("//", "//user:sesame@")
    assert download([url], target, limit=LIMIT) == Download(url, None)
    assert pauses == [20.0, 2.0]
    assert capsys.readouterr().out == "  127.0.0.1 asks to wait 20 s\n"


@pytest.mark.parametrize("number", [429, 502, 503, 504])
def test_download_tries_a_busy_mirror_three_times(
    server: ScriptedServer, target: Path, pauses: list[float], number: int
) -> None:
    urls = [server.url("/busy", status(number)), server.url("/good", good)]
    assert download(urls, target, limit=LIMIT).url == urls[1]
    assert server.paths == ["/busy"] * 3 + ["/good"]
    assert pauses == [1.0, 2.0]


@pytest.mark.parametrize(
    ("retry_after", "pause"),
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
def test_pause_that_a_mirror_asks_for_is_limited(
    server: ScriptedServer, target: Path, pauses: list[float], retry_after: str, pause: float
) -> None:
    busy = in_turn(status(503, f"Retry-After: {retry_after}"), good)
    download([server.url("/it", busy)], target, limit=LIMIT)
    assert pauses == [pause]


@pytest.mark.parametrize(
    "answer", [status(404), status(403), status(500), announced_too_large, endless, hang_up, loop]
)
def test_download_tries_once_where_waiting_does_not_help(
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
def test_deadline_ends_what_no_timeout_of_a_socket_ends(  # noqa: PLR0917
    server: ScriptedServer,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    fetch: Fetch,
    scheme: str,
    answer: Answer,
) -> None:
    """Each byte arrives in time and the whole never does."""
    monkeypatch.setattr(downloads, "_HEADER_SECONDS", 0.4)
    monkeypatch.setattr(downloads, "_IDLE_SECONDS", 0.4)
    use_proxy(server.url(""))
    server.answers["*"] = answer
    code = "mirror-slow" if answer is chunk_size_dripping else "mirror-silent"
    start = time.monotonic()
    with failing(code):
        fetch([f"{scheme}://mirror.test/it"], target, limit=LIMIT)
    assert time.monotonic() - start < 5
    assert names(target.parent) == []


def test_deadline_ends_a_handshake_within_a_proxy_s_tls(
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fetch: Fetch,
    server: ScriptedServer,  # noqa: ARG001 - no proxy of the caller's
) -> None:
    pem = certificate(tmp_path, "IP:127.0.0.1")
    monkeypatch.setattr(downloads, "_HEADER_SECONDS", 0.4)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    with scripted_server() as secure:
        use_tls(secure, pem)
        use_proxy(secure.url("").replace("http:", "https:"))
        secure.answers["*"] = tls_dripping
        with failing("mirror-silent"):
            fetch(["https://mirror.test/it"], target, limit=LIMIT)


def test_deadline_ends_the_attempts_at_a_host_of_many_addresses(
    server: ScriptedServer, target: Path, monkeypatch: pytest.MonkeyPatch, fetch: Fetch
) -> None:
    monkeypatch.setattr(downloads, "_HEADER_SECONDS", 0.4)
    monkeypatch.setattr(downloads, "_CONNECT_SECONDS", 0.3)
    addresses = [("192.0.2.1", 80 + number) for number in range(100)]
    address_infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: address_infos)
    tried: list[object] = []

    def connect(self: socket.socket, address: object) -> None:
        tried.append(address)
        time.sleep(self.gettimeout() or 0)
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", connect)
    with failing("mirror-silent"):
        fetch(["http://mirror.test/it"], target, limit=LIMIT)
    assert len(tried) < 10
    assert server.paths == []


def test_download_just_above_the_minimum_rate_has_a_limit_in_all(
    server: ScriptedServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_TOTAL_SECONDS", 0.3)
    with failing("mirror-takes-too-long"):
        download([server.url("/it", dripping)], target, limit=LIMIT)
    assert names(target.parent) == []


def test_download_says_that_a_mirror_is_down(
    server: ScriptedServer, target: Path, pauses: list[float]
) -> None:
    with ScriptedServer() as other:
        closed = other.url("/x").replace("//", "//user:sesame@")
    place = closed.split("@")[1].removesuffix("/x")
    with failing("host-unreachable", "host-unreachable") as excinfo:
        download([closed, closed], target, limit=LIMIT)
    reason = f"http://{place}/x: no answer from {place} (Connection refused)"
    assert excinfo.value.message == f"no mirror delivered x: {reason}; {reason}"
    assert excinfo.value.hint
    assert pauses == []
    second = server.url("/good", good)
    assert download([closed, second], target, limit=LIMIT).url == second


def test_download_says_that_a_host_is_unknown(
    server: ScriptedServer, target: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    second = server.url("/good", good)
    real = socket.getaddrinfo

    def dead(host: str, *more: Any, **words: Any) -> Any:
        if host == "mirror.example":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *more, **words)

    monkeypatch.setattr(socket, "getaddrinfo", dead)
    with failing("host-unknown") as excinfo:
        download(["https://u:sesame@mirror.example/x"], target, limit=LIMIT)
    reason = "x: unknown host mirror.example (Temporary failure in name resolution)"
    assert excinfo.value.message.endswith(reason)
    assert pauses == []
    assert download(["http://mirror.example/x", second], target, limit=LIMIT).url == second


def certificate(folder: Path, name: str) -> Path:
    """Make a self-signed certificate for a name, with its key, in one file."""
    pem = folder / "tls.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={name}"),
            *("-keyout", pem, "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )
    with pem.open("ab") as out:
        out.write((folder / "certificate.pem").read_bytes())
    return pem


def use_tls(server: ScriptedServer, pem: Path) -> None:
    """Serve with this certificate and key from now on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)


@pytest.mark.parametrize("name", ["IP:127.0.0.1", "DNS:mirror.example"])
def test_download_refuses_a_certificate_that_is_not_trusted(  # noqa: PLR0917
    server: ScriptedServer,
    target: Path,
    tmp_path: Path,
    name: str,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pem = certificate(tmp_path, name)
    plain = server.url("/good", good)
    with scripted_server() as secure:
        use_tls(secure, pem)
        url = secure.url("/good", good).replace("http:", "https:")
        with failing("certificate-not-trusted") as excinfo:
            download([url], target, limit=LIMIT)
        assert "self-signed" in excinfo.value.message
        assert pauses == []
        assert secure.paths == []
        assert download([url, plain], target, limit=LIMIT).url == plain
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))  # now its signer is trusted
        if name.startswith("IP"):
            assert download([url], target, limit=LIMIT).url == url
        else:
            with failing("certificate-not-trusted") as excinfo:
                download([url], target, limit=LIMIT)
            assert "mismatch" in excinfo.value.message


def test_download_goes_through_the_configured_proxy(server: ScriptedServer, target: Path) -> None:
    use_proxy(server.url("").replace("//", "//user:sesame@"), ["other.test"])
    server.answers["*"] = good
    assert download(["http://mirror.test/x"], target, limit=LIMIT).url == "http://mirror.test/x"
    assert server.paths == ["http://mirror.test/x"]
    with failing("host-unknown"):
        download(["http://no.other.test/x"], target, limit=LIMIT)
    assert len(server.paths) == 1


@pytest.mark.parametrize("configured", [True, False])
def test_proxy_of_the_caller_counts_where_none_is_configured(
    server: ScriptedServer, target: Path, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    server.answers["*"] = good
    with scripted_server() as other:
        for name in ("http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url(""))
        monkeypatch.setenv("no_proxy", "mirror.test" if configured else "elsewhere.test")
        other.answers["*"] = good
        if configured:
            use_proxy(server.url(""))
        download(["http://mirror.test/x"], target, limit=LIMIT)
        assert (len(server.paths), len(other.paths)) == ((1, 0) if configured else (0, 1))


def test_download_says_that_the_proxy_is_down(server: ScriptedServer, target: Path) -> None:
    with ScriptedServer() as other:
        use_proxy(other.url("").replace("//", "//user:sesame@"))
    place = other.url("").removeprefix("http://")
    for scheme in ("http", "https"):
        with failing("host-unreachable") as excinfo:
            download([f"{scheme}://mirror.test/x"], target, limit=LIMIT)
        assert f"no answer from {place}" in excinfo.value.message
        assert "sesame" not in str(excinfo.value)
    assert server.paths == []


def test_reason_is_not_the_error_that_the_caller_was_handling(
    server: ScriptedServer, target: Path
) -> None:
    with ScriptedServer() as other:
        closed = other.url("/x")
    try:
        raise FileNotFoundError(2, "not in the cache")
    except FileNotFoundError:
        with failing("host-unreachable") as excinfo:
            download([closed], target, limit=LIMIT)
    assert "Connection refused" in excinfo.value.message
    assert server.paths == []


@pytest.mark.parametrize("answer", [status(503), onward("http://user:sesame@[::1/"), hang_up])
def test_message_holds_no_password(server: ScriptedServer, target: Path, answer: Answer) -> None:
    url = server.url("/it", answer).replace("//", "//user:sesame@")
    with pytest.raises(DownloadFailed) as excinfo:
        download([url], target, limit=LIMIT)
    assert "sesame" not in str(excinfo.value)


def test_message_holds_no_terminal_codes(server: ScriptedServer, target: Path) -> None:
    def rude(handler: Handler) -> None:
        handler.wfile.write(b"\x1b]0;mine\x07\x1b[2J\r\n")

    with pytest.raises(DownloadFailed) as excinfo:
        download([server.url("/it", rude)], target, limit=LIMIT)
    assert excinfo.value.message.isprintable()


def test_download_returns_the_date_of_the_file(server: ScriptedServer, target: Path) -> None:
    def dated(handler: Handler) -> None:
        handler.head(200, "Content-Length: 2", "Last-Modified: Thu, 15 Jan 2026 00:45:00 GMT")
        handler.wfile.write(b"ok")

    result = download([server.url("/it", dated)], target, limit=LIMIT)
    assert result.modified == datetime(2026, 1, 15, 0, 45, tzinfo=UTC)


def test_long_download_is_reported_where_there_is_no_terminal(
    server: ScriptedServer,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "_LONG_SECONDS", 0.0)
    large = server.url("/large", file(bytes(2_100_000)))
    download([large], target, limit=1 << 22)
    assert capsys.readouterr().out == "  2.1 MB of file in 0 s\n"
    download([server.url("/small", good)], target, limit=LIMIT)
    monkeypatch.setattr(progress, "_LONG_SECONDS", 60.0)
    download([large], target, limit=1 << 22)
    assert capsys.readouterr().out == ""


def test_download_creates_a_directory_for_its_owner_only(
    server: ScriptedServer, target: Path
) -> None:
    download([server.url("/good", good)], target, limit=LIMIT)
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert names(target.parent) == ["file"]
    target.parent.chmod(0o755)
    download([server.url("/good", good)], target, limit=LIMIT)
    assert target.parent.stat().st_mode & 0o777 == 0o755
