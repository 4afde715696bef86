"""The real nginx over a binhost: it serves the current generation and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import BinmillError, HostLacks, NotTrusted
from tasks.publish import generation, served
from tasks.publish.served import View
from tasks.serve import certificates
from tasks.serve.ephemeral import ephemeral_server
from tasks.serve.nginx_process import serving
from tasks.serve.policy import PUBLIC, binhost_location
from tests.kit.processes import alive
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.programs import serve_nothing

BASE = [binhost_location("base", PUBLIC)]


def ask(
    url: str, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Send one request with this very path; returns status and body."""
    host = url.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=20)) as connection:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for key, value in (headers or {}).items():
            connection.putheader(key, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()


def write_binhost(root: Path) -> None:
    for number in (1, 2):
        folder = root / f"base/gen/{number}/public/a-b/c"
        folder.mkdir(parents=True)
        (folder / "c-1-1.gpkg.tar").write_bytes(b"package of %d" % number)
        (root / f"base/gen/{number}/public/Packages").write_text(f"TIMESTAMP: {number}\n")
    (root / "base/current").symlink_to("gen/1")
    (root / "base/published.json").write_text("{}")
    (root / "base/.hidden").write_text("x")
    (root / "Packages").write_text("top")
    (root.parent / "doit.db").write_text("secret")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    write_binhost(tmp_path / "state/binhost")
    with serving(BASE, tmp_path / "state", tmp_path / "nginx") as server:
        yield server.url


def test_current_generation_is_served(url: str, tmp_path: Path) -> None:
    assert ask(url, "/base/Packages") == (200, b"TIMESTAMP: 1\n")
    assert ask(url, "/base/a-b/c/c-1-1.gpkg.tar") == (200, b"package of 1")
    assert ask(url, "/base/Packages", "HEAD") == (200, b"")
    top = tmp_path / "state/binhost/base"
    (top / "next").symlink_to("gen/2")
    (top / "next").rename(top / "current")
    assert ask(url, "/base/Packages") == (200, b"TIMESTAMP: 2\n")
    assert ask(url, "/base/a-b/c/c-1-1.gpkg.tar") == (200, b"package of 2")


def test_packages_of_the_previous_generation_are_served(url: str, tmp_path: Path) -> None:
    """Every URL in an index that is one generation old still works, but no older one."""
    top = tmp_path / "state/binhost/base"
    (top / "gen/1/public/a-b/c/gone-1-1.gpkg.tar").write_bytes(b"removed")
    (top / "gen/3/public").mkdir(parents=True)
    removed_package = "/base/a-b/c/gone-1-1.gpkg.tar"
    assert ask(url, removed_package) == (200, b"removed")
    generation.switch(top, 2)
    assert ask(url, removed_package) == (200, b"removed")
    assert ask(url, "/base/a-b/c/c-1-1.gpkg.tar") == (200, b"package of 2")  # the newer one
    assert ask(url, "/base/Packages") == (200, b"TIMESTAMP: 2\n")
    generation.switch(top, 3)
    assert ask(url, "/base/Packages")[0] == 404  # never the previous index
    assert ask(url, "/base/a-b/c/c-1-1.gpkg.tar") == (200, b"package of 2")
    assert ask(url, removed_package)[0] == 404
    assert ask(url, "/base/previous/Packages")[0] == 404


def test_range_of_a_file_is_served(url: str) -> None:
    path = "/base/a-b/c/c-1-1.gpkg.tar"
    assert ask(url, path, headers={"Range": "bytes=8-9"}) == (206, b"of")
    assert ask(url, path, headers={"Range": "bytes=99-"})[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/Packages",
        "/base",
        "/base/",
        "/base/a-b",
        "/base/a-b/",
        "/base/none",
        "/base/current/Packages",
        "/base/gen/1/Packages",
        "/base/public/Packages",
        "/base/current/public/Packages",
        "/base/gen/2/Packages",
        "/base/published.json",
        "/base/.hidden",
        "/other/Packages",
        "/.hidden",
        "/base/../base/published.json",
        "/base/../published.json",
        "/base/../../published.json",
        "/base/../../gen/2/Packages",
        "/base/..%2fpublished.json",
        "/base/..%2f..%2fgen/2/Packages",
        "/base/%2e%2e/gen/2/Packages",
        "/base/%2e%2e/%2e%2e/gen/2/Packages",
        "/base/%252e%252e/gen/2/Packages",
        "/base/a-b/../../gen/2/Packages",
        "/base/a-b/../../../../doit.db",
        "/../doit.db",
        "/..%2fdoit.db",
        "/%2e%2e/doit.db",
        "/base//../../doit.db",
        "/base/Packages%00",
        "/base/Packages/",
        "/base/%0a",
        "/ba%2fse/Packages",
        "//etc/passwd",
        "/base//etc/passwd",
    ],
)
def test_any_other_path_does_not_exist(url: str, path: str) -> None:
    status, body = ask(url, path)
    assert status == 404
    assert b"nginx/" not in body
    assert b"TIMESTAMP" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PROPFIND", "OPTIONS", "TRACE"])
def test_method_that_writes_is_forbidden(url: str, method: str, tmp_path: Path) -> None:
    assert ask(url, "/base/Packages", method)[0] == 403
    assert (tmp_path / "state/binhost/base/gen/1/public/Packages").read_text() == "TIMESTAMP: 1\n"


def test_nginx_ends_with_the_block(tmp_path: Path) -> None:
    scratch = tmp_path / "nginx"
    with serving(BASE, tmp_path / "state", scratch) as server:
        listen = server.url.removeprefix("http://")
        pid = int((scratch / "nginx.pid").read_text())
        group = os.getpgid(pid)
        assert alive(pid)
    assert not alive(pid)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    with socket.socket() as probe:  # and the port is free again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, _, port = listen.partition(":")
        probe.bind((host, int(port)))


def test_nginx_ends_when_the_caller_is_killed(tmp_path: Path) -> None:
    """nginx's workers do not notice that their master was killed, and would go on serving."""
    with subprocess.Popen(
        python(serve_nothing, tmp_path), stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://")
        group = os.getpgid(int((tmp_path / "nginx/nginx.pid").read_text()))
        process.kill()
    deadline = time.monotonic() + 20
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)


def test_nginx_ends_with_an_error_in_the_block(tmp_path: Path) -> None:
    def fail() -> None:
        with serving(BASE, tmp_path / "state", tmp_path / "nginx"):
            pid.append(int((tmp_path / "nginx/nginx.pid").read_text()))
            raise KeyboardInterrupt

    pid: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not alive(pid[0])


def test_port_of_another_server_is_refused(tmp_path: Path) -> None:
    """The other server answers requests too: an answer does not prove that ours listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        stop = threading.Event()

        def answer() -> None:
            other.settimeout(0.1)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    other.accept()[0].close()

        server = threading.Thread(target=answer)
        server.start()
        try:
            listen = f"127.0.0.1:{other.getsockname()[1]}"
            # left by a server that was killed
            (tmp_path / "nginx").mkdir()
            (tmp_path / "nginx/nginx.pid").write_text("1\n")
            with (
                refused(HostLacks, "nginx-address-unavailable", listen=listen) as excinfo,
                serving(BASE, tmp_path / "state", tmp_path / "nginx", listen),
            ):
                pytest.fail("nginx started")
        finally:
            stop.set()
            server.join()
    assert "in use" in str(excinfo.value.fields["reason"])


@pytest.mark.parametrize(
    "name", ["with space", "semi;colon", "{brace}", "\u00e9\u4e2d", "it's", "#x", "x" * 180]
)
def test_unusual_state_folder_is_served(tmp_path: Path, name: str) -> None:
    state = tmp_path / name / "state"
    write_binhost(state / "binhost")
    with serving(BASE, state, tmp_path / name / "nginx") as server:
        assert ask(server.url, "/base/Packages") == (200, b"TIMESTAMP: 1\n")


@pytest.mark.parametrize("name", ["dollar$uri", 'quote"', "back\\slash", "new\nline", "tab\t"])
def test_path_that_nginx_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with (
        refused(BinmillError, "nginx-path-unsafe", path=str(tmp_path / name)) as excinfo,
        serving(BASE, tmp_path / name, tmp_path / "nginx"),
    ):
        pytest.fail("nginx started")
    assert "\n" not in excinfo.value.message


def described(text: bytes, path: str = "a-b/c/c-1-1.gpkg.tar") -> dict[str, str]:
    """The stanza of a package with this content."""
    return {"PATH": path, "SIZE": str(len(text)), "SHA512": hashlib.sha512(text).hexdigest()}


def test_packages_that_are_served_are_compared_with_their_index(url: str, tmp_path: Path) -> None:
    view, package = View(f"{url}/base"), described(b"package of 1")
    served.verify(view, [package, package])
    for other in (b"package of 2", b"package", b"package of 1, and more"):
        with refused(NotTrusted, "package-served-differs", url=f"{url}/base/{package['PATH']}"):
            served.verify(view, [package, described(other)])
    with refused(NotTrusted, "package-not-served", cause="404"):
        served.verify(view, [described(b"", "a-b/c/other-1-1.gpkg.tar")])
    path = tmp_path / "state/binhost/base/gen/1/public" / package["PATH"]
    path.write_bytes(b"package of 1 and 2")
    with refused(NotTrusted, "package-served-differs"):
        served.verify(view, [package])


def test_packages_of_a_group_are_compared_over_tls(tmp_path: Path) -> None:
    write_binhost(tmp_path / "state/binhost")
    public = tmp_path / "state/binhost/base/gen/1/public"
    public.rename(public.with_name("role.java"))
    location, users = binhost_location("base", "role:java"), {"member": ["role:java"]}
    space = tmp_path / "space"
    space.mkdir()
    with ephemeral_server([location], users, tmp_path / "state", space, "nobody") as server:
        url, package = f"{server.url}/{location.path}", described(b"package of 1")
        member = View(url, server.certificate, "member", server.passwords["member"])
        served.verify(member, [package])
        with refused(NotTrusted, "package-not-served", cause="401"):
            served.verify(replace(member, password="other"), [package])
        with refused(NotTrusted, "package-not-served", cause="401"):
            served.verify(replace(member, user=""), [package])
        (tmp_path / "other").mkdir()
        other = certificates.self_signed(tmp_path / "other").certificate.read_text()
        with refused(NotTrusted, "package-not-served"):
            served.verify(replace(member, certificate=other), [package])
    with refused(NotTrusted, "package-not-served"):  # nothing listens any more
        served.verify(member, [package])
