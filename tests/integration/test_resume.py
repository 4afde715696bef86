"""Interrupted downloads, and the bytes that may be appended to them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tasks.config.seeds import Seed
from tasks.errors import DownloadFailed, NotTrusted
from tasks.lock import SeedPin
from tasks.seed.download import StageSource, fetch
from tasks.serve.nginx_process import serving
from tasks.serve.policy import PUBLIC, Location
from tasks.system import http as downloads
from tasks.system.files import sha512
from tasks.system.http import Download, NotOnMirrors, download
from tasks.system.proxy import use_proxy
from tests.kit.files import names
from tests.kit.processes import eventually
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.kit.scripted_server import Answer, Handler, ScriptedServer, file, status
from tests.programs import download_file

LIMIT = 100_000
BODY = bytes(range(256)) * 40  # 10240 bytes
OTHER = BODY[::-1]
DATE = "Thu, 15 Jan 2026 00:45:00 GMT"
LATER = "Fri, 16 Jan 2026 00:45:00 GMT"
MODIFIED = 1768437900  # DATE in seconds
DATED = (f"Last-Modified: {DATE}",)
TAGGED = ('ETag: "one"',)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_PAUSES", (0.0, 0.0))


def broken_off(server: ScriptedServer, target: Path, *headers: str, body: bytes = BODY) -> str:
    """Start a download that fails after 4000 bytes; returns its URL."""
    url = server.url("/first", file(body, *headers, pieces=4000))
    with pytest.raises(DownloadFailed, match=f"4000 of {len(body)} bytes|4000 bytes read"):
        download([url], target, limit=LIMIT)
    assert target.read_bytes() == body[:4000]
    assert names(target.parent) == [".file.partial", "file"]
    server.ranges.clear()
    server.paths.clear()
    return url


def whole(target: Path, body: bytes = BODY) -> bool:
    return target.read_bytes() == body and names(target.parent) == ["file"]


@pytest.mark.parametrize(
    ("headers", "validator"),
    [(TAGGED, '"one"'), (DATED, DATE), ((*TAGGED, *DATED), '"one"')],
)
def test_a_mirror_that_breaks_off_is_asked_for_the_rest(
    server: ScriptedServer, target: Path, headers: tuple[str, ...], validator: str
) -> None:
    url = server.url("/it", file(BODY, *headers, pieces=4000, validators=(validator,)))
    assert download([url], target, limit=len(BODY)).url == url
    assert whole(target)
    assert server.ranges == [(None, None), ("bytes=4000-", validator), ("bytes=8000-", validator)]


def test_the_next_mirror_is_asked_by_date(server: ScriptedServer, target: Path) -> None:
    """An ETag is one server's own; the date is the same on all copies."""
    first = broken_off(server, target, *TAGGED, *DATED)
    server.answers["/first"] = status(403)
    second = server.url("/second", file(BODY, 'ETag: "two"', *DATED, validators=(DATE,)))
    result = download([first, second], target, limit=LIMIT)
    assert (result.url, result.mixed) == (second, True)
    assert result.modified is not None
    assert result.modified.isoformat() == "2026-01-15T00:45:00+00:00"
    assert whole(target)
    assert server.ranges == [("bytes=4000-", '"one"'), ("bytes=4000-", DATE)]


def test_behind_a_redirect_the_server_that_answers_counts(
    server: ScriptedServer, target: Path
) -> None:
    broken_off(server, target, *TAGGED, *DATED)
    server.answers["/first"] = file(BODY, *TAGGED, *DATED, validators=('"one"',))
    url = server.url("/it", status(302, "Location: /first"))
    assert download([url], target, limit=LIMIT).mixed is False
    assert whole(target)
    assert server.ranges == [("bytes=4000-", DATE), ("bytes=4000-", '"one"')]


def test_a_mirror_without_the_file_costs_nothing(server: ScriptedServer, target: Path) -> None:
    first = broken_off(server, target, *DATED)
    missing = server.url("/gone", status(404))
    with pytest.raises(NotOnMirrors):
        download([missing], target, limit=LIMIT)
    server.answers["/first"] = file(BODY, *DATED, validators=(DATE,))
    download([missing, first], target, limit=LIMIT)
    assert whole(target)
    assert server.ranges[-1] == ("bytes=4000-", DATE)


def test_all_mirrors_broken_then_another_run(server: ScriptedServer, target: Path) -> None:
    """Bytes that have arrived are there when a mirror is back."""
    first = broken_off(server, target, *DATED)
    server.answers["/first"] = status(503)
    with pytest.raises(DownloadFailed):
        download([first], target, limit=LIMIT)
    assert names(target.parent) == [".file.partial", "file"]
    server.answers["/first"] = file(BODY, *DATED, validators=(DATE,))
    assert download([first], target, limit=LIMIT).mixed is False
    assert whole(target)


@pytest.mark.parametrize("headers", [(), ('ETag: W/"one"',), ("ETag: one", "Last-Modified: now")])
def test_without_a_validator_nothing_is_continued(
    server: ScriptedServer, target: Path, headers: tuple[str, ...]
) -> None:
    url = server.url("/it", file(BODY, *headers, pieces=4000))
    with pytest.raises(DownloadFailed):
        download([url], target, limit=LIMIT)
    assert server.ranges == [(None, None)] * 3
    assert names(target.parent) == []


@pytest.mark.parametrize("validator", [*TAGGED, *DATED])
def test_a_file_that_changed_is_taken_from_the_start(
    server: ScriptedServer, target: Path, validator: str
) -> None:
    url = broken_off(server, target, validator)
    server.answers["/first"] = file(
        OTHER, 'ETag: "new"', f"Last-Modified: {LATER}", validators=('"new"', LATER), pieces=6000
    )
    assert download([url], target, limit=LIMIT).modified is not None
    assert whole(target, OTHER)
    assert server.ranges[0][0] == "bytes=4000-"
    assert server.ranges[1] == ("bytes=6000-", '"new"')


def partly(place: str, *headers: str, number: int = 206) -> Answer:
    """Answer any request for a range with 206; send the whole file otherwise."""

    def answer(handler: Handler) -> None:
        if handler.headers.get("Range") is None:
            file(OTHER, *headers)(handler)
        else:
            handler.head(number, place, f"Content-Length: {len(BODY) - 4000}", *headers)
            handler.wfile.write(BODY[4000:])

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        partly("Content-Range: bytes 4001-10239/10240"),
        partly("Content-Range: bytes 3999-10238/10240"),
        partly("Content-Range: bytes 0-6239/10240"),
        partly("Content-Range: bytes 4000-10239/10241"),
        partly("Content-Range: bytes 4000-10239/*"),
        partly("Content-Range: bytes */10240"),
        partly("Content-Range: items 4000-10239/10240"),
        partly("Content-Range: bytes 4000-10239/10240, bytes 0-1/2"),
        partly("Content-Type: multipart/byteranges; boundary=x"),
        partly("Content-Range: bytes 4000-10239/10240", f"Last-Modified: {LATER}"),
        partly("Content-Range: bytes */10240", number=416),
        partly("Content-Range: bytes 4000-10239/10240", number=416),
    ],
)
def test_a_wrong_part_is_not_appended(server: ScriptedServer, target: Path, answer: Answer) -> None:
    url = broken_off(server, target, *DATED)
    server.answers["/first"] = answer
    download([url], target, limit=LIMIT)
    assert whole(target, OTHER)
    assert server.ranges == [("bytes=4000-", DATE), (None, None)]


def test_only_once_from_the_start(server: ScriptedServer, target: Path) -> None:
    url = broken_off(server, target, *DATED)
    server.answers["/first"] = status(416)
    with pytest.raises(DownloadFailed, match="HTTP 416"):
        download([url], target, limit=LIMIT)
    assert server.ranges == [("bytes=4000-", DATE), (None, None)]
    assert names(target.parent) == [".file.partial", "file"]  # another mirror may continue it


def test_a_part_that_goes_on_and_on(server: ScriptedServer, target: Path) -> None:
    """The limit counts the whole file, and so does the announced length."""
    url = broken_off(server, target, *DATED)

    def answer(handler: Handler) -> None:
        handler.head(206, "Content-Range: bytes 4000-10239/10240", "Transfer-Encoding: chunked")
        while True:
            handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")

    server.answers["/first"] = answer
    with pytest.raises(DownloadFailed, match=r"too large .more than 10,240 bytes"):
        download([url], target, limit=LIMIT)
    assert names(target.parent) == []


def test_a_part_of_a_file_that_is_too_large_now(server: ScriptedServer, target: Path) -> None:
    url = broken_off(server, target, *DATED)
    with pytest.raises(DownloadFailed, match=r"too large .10,240 bytes, the limit is 10,000"):
        download([url], target, limit=10_000)
    assert server.ranges == [(None, None)]
    assert names(target.parent) == []


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '"x"',
        "\0",
        "\udcff",
        '{"url": "{url}", "etag": "\\"one\\"", "modified": null, "total": null}',
        '{"url": "{url}", "etag": "\\"one\\"", "modified": null, "total": 4000}',
        '{"url": "{url}", "etag": "\\"one\\"", "modified": null, "total": "10240"}',
        '{"url": "{url}", "etag": "\\"one\\"", "modified": null, "total": 1e9}',
        '{"url": "{url}", "etag": "W/\\"one\\"", "modified": null, "total": 10240}',
        '{"url": "{url}", "etag": "\\"one\\r\\nX: y\\"", "modified": 3, "total": 10240}',
        '{"url": 3, "etag": "\\"one\\"", "modified": null, "total": 10240}',
        '{"etag": "\\"one\\"", "modified": null, "total": 10240}',
    ],
)
def test_a_note_that_does_not_fit(server: ScriptedServer, target: Path, note: str) -> None:
    url = server.url("/it", file(BODY, *TAGGED, validators=('"one"',)))
    target.parent.mkdir()
    target.write_bytes(OTHER[:4000])
    text = note.replace("{url}", url)
    (target.parent / ".file.partial").write_text(text, errors="surrogateescape")
    download([url], target, limit=LIMIT)
    assert server.ranges == [(None, None)]
    assert whole(target)


@pytest.mark.parametrize("left", ["no note", "no file", "empty", "too much", "a link"])
def test_a_pair_that_does_not_fit(server: ScriptedServer, target: Path, left: str) -> None:
    url = broken_off(server, target, *TAGGED)
    server.answers["/first"] = file(BODY, *TAGGED, validators=('"one"',))
    victim = target.parent.parent / "victim"
    victim.write_bytes(OTHER[:4000])
    if left == "no note":
        (target.parent / ".file.partial").unlink()
    elif left in ("no file", "a link"):
        target.unlink()
    if left == "a link":
        target.symlink_to(victim)
    elif left in ("empty", "too much"):
        target.write_bytes(b"" if left == "empty" else BODY)
    download([url], target, limit=LIMIT)
    assert server.ranges == [(None, None)]
    assert whole(target)
    assert victim.read_bytes() == OTHER[:4000]


def test_no_password_is_left_behind(server: ScriptedServer, target: Path) -> None:
    url = server.url("/it", file(BODY, *TAGGED, pieces=3000, validators=('"one"',)))
    secret = url.replace("//", "//user:sesame@")
    with pytest.raises(DownloadFailed):
        download([secret], target, limit=LIMIT)
    note = target.parent / ".file.partial"
    assert "sesame" not in note.read_text()
    assert json.loads(note.read_text())["url"] == url
    assert note.stat().st_mode & 0o777 == 0o600
    assert download([secret], target, limit=LIMIT) == Download(secret, None)
    assert whole(target)


def test_killed_in_the_middle(server: ScriptedServer, target: Path) -> None:
    """SIGKILL: the next process requests only the rest."""

    def stalling(handler: Handler) -> None:
        handler.head(200, f"Content-Length: {len(BODY)}", *TAGGED)
        handler.wfile.write(BODY[:9000])
        handler.server.quit.wait(30)

    url = server.url("/it", stalling)
    with subprocess.Popen(python(download_file, url, target), cwd=PROJECT) as process:
        started = eventually(lambda: target.exists() and target.stat().st_size > 0)
        process.send_signal(signal.SIGKILL)
    assert started
    assert names(target.parent) == [".file.partial", "file"]
    size = target.stat().st_size
    server.answers["/it"] = file(BODY, *TAGGED, validators=('"one"',))
    download([url], target, limit=LIMIT)
    assert whole(target)
    assert server.ranges == [(None, None), (f"bytes={size}-", '"one"')]


def relay(cut: int) -> Answer:
    """A proxy that closes each connection after `cut` bytes of the body."""

    def answer(handler: Handler) -> None:
        there = urlsplit(handler.path)
        line = http.client.HTTPConnection(there.netloc, timeout=20)
        headers = {k: v for k, v in handler.headers.items() if k in ("Range", "If-Range")}
        line.request("GET", there.path, headers=headers)
        response = line.getresponse()
        handler.head(
            response.status, *(f"{k}: {v}" for k, v in response.getheaders() if k != "Connection")
        )
        handler.wfile.write(response.read()[:cut])
        line.close()

    return answer


@pytest.fixture
def nginx(tmp_path: Path, server: ScriptedServer) -> Iterator[tuple[str, Path]]:
    """Two mirrors of the real nginx, NAME/file in each, behind a proxy that closes connections."""
    root = tmp_path / "served"
    for name in ("one", "two"):
        (root / name / "gen").mkdir(parents=True)
        (root / name / "gen/file").write_bytes(BODY)
        os.utime(root / name / "gen/file", (MODIFIED, MODIFIED))
        (root / name / "current").symlink_to("gen")
    server.answers["*"] = relay(3000)
    locations = [Location(name, f"{name}/current", PUBLIC, (r"\w+",)) for name in ("one", "two")]
    with serving(locations, root, tmp_path / "nginx") as nginx:
        use_proxy(server.url(""))
        yield nginx.url, root


def test_nginx_gives_the_rest(
    nginx: tuple[str, Path], server: ScriptedServer, target: Path
) -> None:
    url = f"{nginx[0]}/one/file"
    with pytest.raises(DownloadFailed):
        download([url], target, limit=LIMIT)
    assert target.read_bytes() == BODY[:9000]
    result = download([url], target, limit=LIMIT)
    assert whole(target)
    assert result.modified is not None
    assert result.modified.isoformat() == "2026-01-15T00:45:00+00:00"
    assert [pair[0] for pair in server.ranges] == [
        None,
        "bytes=3000-",
        "bytes=6000-",
        "bytes=9000-",
    ]
    assert {pair[1] for pair in server.ranges[1:]} == {f'"{MODIFIED:x}-{len(BODY):x}"'}


def test_another_nginx_gives_the_rest(
    nginx: tuple[str, Path], server: ScriptedServer, target: Path
) -> None:
    urls = [f"{nginx[0]}/{name}/file" for name in ("one", "two")]
    assert download(urls, target, limit=LIMIT).url == urls[1]
    assert whole(target)
    assert server.ranges[-1] == ("bytes=9000-", DATE)


@pytest.mark.parametrize("mirror", ["one", "two"])
def test_nginx_has_another_file_now(
    nginx: tuple[str, Path], server: ScriptedServer, target: Path, mirror: str
) -> None:
    with pytest.raises(DownloadFailed):
        download([f"{nginx[0]}/one/file"], target, limit=LIMIT)
    (nginx[1] / mirror / "gen/file").write_bytes(OTHER)
    server.answers["*"] = relay(LIMIT)
    result = download([f"{nginx[0]}/{mirror}/file"], target, limit=LIMIT)
    assert whole(target, OTHER)
    assert result.mixed is False
    assert server.ranges[-1][0] == "bytes=9000-"


SEED = Seed(flavour="openrc", key="stages")
PATH = "releases/amd64/autobuilds/x/file"


@pytest.fixture
def pin(tmp_path: Path) -> SeedPin:
    (tmp_path / "right").write_bytes(BODY)
    return SeedPin(
        arch="amd64",
        flavour="openrc",
        path="x/file",
        size=len(BODY),
        sha512=sha512(tmp_path / "right"),
    )


def mirror(server: ScriptedServer, name: str, answer: Answer) -> str:
    server.url(f"/{name}/{PATH}", answer)
    return server.url(f"/{name}")


def stage_source(target: Path, *mirrors: str) -> StageSource:
    return StageSource(SEED, mirrors, target.parent)


FLIPPED = BODY[:5000] + b"?" + BODY[5001:]
PAGE = b"<html><body>captive portal</body></html>"


@pytest.mark.parametrize("wrong", [FLIPPED, PAGE, b""])
def test_wrong_bytes_are_passed_over(
    server: ScriptedServer, target: Path, pin: SeedPin, wrong: bytes
) -> None:
    """One byte flipped, and an HTML page with status 200: the digest decides."""
    liar, honest = mirror(server, "a", file(wrong, *DATED)), mirror(server, "b", file(BODY))
    fetch(stage_source(target, liar, honest), pin)
    assert whole(target)
    target.unlink()
    with refused(NotTrusted, "stage-not-on-mirrors") as excinfo:
        fetch(stage_source(target, liar.replace("//", "//user:sesame@")), pin)
    assert names(target.parent) == []
    assert "/a/" in str(excinfo.value)
    assert "sesame" not in str(excinfo.value)
    with refused(NotTrusted, "stage-not-on-mirrors") as excinfo:
        fetch(stage_source(target, liar, mirror(server, "c", status(403))), pin)
    assert "403" in str(excinfo.value)
    assert names(target.parent) == []


def test_a_liar_who_breaks_off_discredits_nobody(
    server: ScriptedServer, target: Path, pin: SeedPin
) -> None:
    """The second mirror is not blamed for a wrong beginning that came from the first."""
    liar = mirror(server, "a", file(OTHER, *DATED, pieces=1000))
    honest = mirror(server, "b", file(BODY, *DATED, validators=(DATE,)))
    fetch(stage_source(target, liar, honest), pin)
    assert whole(target)
    assert server.ranges[-2:] == [("bytes=1000-", DATE), (None, None)]


def test_two_liars_come_to_an_end(server: ScriptedServer, target: Path, pin: SeedPin) -> None:
    one = mirror(server, "a", file(OTHER, *DATED, pieces=1000, validators=(DATE,)))
    two = mirror(server, "b", file(OTHER, *DATED, pieces=9000, validators=(DATE,)))
    with refused(NotTrusted, "stage-not-on-mirrors"):
        fetch(stage_source(target, one, two), pin)
    assert len(server.paths) < 20
