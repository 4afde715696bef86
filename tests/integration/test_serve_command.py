"""`doit serve` as it runs for days: users come and go, generations change, certificates too.

Asked by wget(1) and curl(1), as clients are.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tasks.serve import certificates
from tests.kit.doit_runs import CONFIG, doit
from tests.kit.project import PROJECT

pytestmark = pytest.mark.usefixtures("needs_root")
ACCESS = """
[access]
groups = ["role:java", "site:acme"]
restricted = "role:java"
free = ["MIT"]
binhosts = {{ java = "role:java" }}
[serve]
certificate = "server.pem"
certificate_key = "server.key"
[binhost]
listen = "127.0.0.1:{port}"
"""


class Site:
    """A site that is served by the real `doit serve`."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as plug:
            plug.bind(("127.0.0.1", 0))
            port = plug.getsockname()[1]
        self.folder, self.state = folder, folder / "state"
        self.config = folder / "config.toml"
        self.config.write_text(CONFIG + ACCESS.format(port=port))
        self.tls = certificates.throwaway(folder)
        self.url = f"https://127.0.0.1:{port}"

    def publish(self, name: str, number: int, licence: str = "MIT") -> None:
        view = "role.java" if name == "java" else "public"
        folder = self.state / f"binhost/{name}/gen/{number}/{view}"
        folder.mkdir(parents=True)
        (folder / "Packages").write_text(
            f"TIMESTAMP: {number}\n\nCPV: a-b/c-1\nPATH: a-b/c/c-1-1.gpkg.tar\nLICENSE: {licence}\n"
        )
        link = folder.parents[2] / "next"
        link.symlink_to(f"gen/{number}")
        link.rename(folder.parents[2] / "current")

    def status(self, path: str, certificate: str = "", user: tuple[str, str] | None = None) -> int:
        pem = str(self.folder / certificate) if certificate else None
        return requests.get(
            self.url + path, cert=pem, auth=user, verify=str(self.tls.certificate), timeout=20
        ).status_code

    def becomes(self, wanted: int, ask: Callable[[], int]) -> None:
        """The answer, within some seconds: the server looks once in a second."""
        deadline = time.monotonic() + 30
        while (answer := ask()) != wanted:
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Path]:
    """`doit serve` of the site while the block runs; gives what it says, as a file."""
    said = site.folder / "said"
    with said.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "doit", "serve"],
            cwd=PROJECT,
            stdout=stream,
            stderr=stream,
            env={**os.environ, "BINMILL_CONFIG": str(site.config), "PYTHONUNBUFFERED": "1"},
        )
        try:
            deadline = time.monotonic() + 60
            while "Ctrl-C ends it" not in said.read_text():
                assert process.poll() is None, said.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield said
        finally:
            process.terminate()  # not SIGINT: who runs in the background ignores that
            assert process.wait(30) == 128 + signal.SIGTERM, said.read_text()


def test_a_server_takes_up_what_changes(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for name in ("base", "java"):
        site.publish(name, 1)
    with serving(site) as said:
        assert f"{site.url}/java/  role:java" in said.read_text()
        assert site.status("/base/Packages") == 200
        assert site.status("/java/Packages") == 401

        # the first certificate: nginx did not ask for any before
        doit(site.config, "user", "add", "jill", "--group", "role:java", "--certificate")
        (tmp_path / "secrets/clients/jill.pem").rename(tmp_path / "jill.pem")
        site.becomes(200, lambda: site.status("/java/Packages", "jill.pem"))
        assert site.status("/mirror/site.acme/distfiles/x", "jill.pem") == 401
        clients_ask(site)

        # other groups, then revoked: a copy of it counts no more
        doit(site.config, "user", "add", "jill", "--group", "site:acme", "--certificate")
        site.becomes(401, lambda: site.status("/java/Packages", "jill.pem"))
        (tmp_path / "secrets/clients/jill.pem").rename(tmp_path / "jill.pem")
        site.becomes(404, lambda: site.status("/mirror/site.acme/distfiles/x", "jill.pem"))
        with requests.Session() as line:  # on a connection that is open already, too
            line.trust_env = False  # a CA of the machine would count before ours
            line.cert, line.verify = str(tmp_path / "jill.pem"), str(site.tls.certificate)
            secret = f"{site.url}/mirror/site.acme/distfiles/x"
            # at first a worker may answer that has the old rules, and ends with its connections
            site.becomes(404, lambda: line.get(secret, timeout=20).status_code)
            doit(site.config, "user", "remove", "jill")
            site.becomes(401, lambda: line.get(secret, timeout=20).status_code)
        assert site.status("/base/Packages") == 200

        # a generation that would give everybody what they may not have is closed, until it is gone
        site.publish("base", 2, licence="Oracle")
        site.becomes(404, lambda: site.status("/base/Packages"))
        assert "closed: /base/ would give public what it may not have: a-b/c-1" in said.read_text()
        site.publish("base", 3)
        site.becomes(200, lambda: site.status("/base/Packages"))

        # a certificate that does not fit its key is not taken up; when both are there, it is
        old = site.tls.certificate.read_text()
        renewed = certificates.throwaway(tmp_path / "renewed")
        shutil.copy(renewed.certificate, site.tls.certificate)
        deadline = time.monotonic() + 30
        while "nginx rejects its new configuration" not in said.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert said.read_text().count("nginx rejects its new configuration") == 1
        shutil.copy(renewed.key, site.tls.key)

        def answers_as_renewed() -> int:
            with contextlib.suppress(requests.exceptions.SSLError):
                return site.status("/base/Packages")
            return 0

        site.becomes(200, answers_as_renewed)
        assert old != site.tls.certificate.read_text()


def clients_ask(site: Site) -> None:
    """wget and curl with a certificate, as docs/serving.md has it."""
    pem, trust = site.folder / "jill.pem", site.tls.certificate
    got = site.folder / "got"
    for path, good in (("/java/Packages", True), ("/mirror/site.acme/distfiles/x", False)):
        url = site.url + path
        commands: list[list[str | Path]] = [
            [
                "wget",
                "-q",
                "-t",
                "1",
                f"--ca-certificate={trust}",
                f"--certificate={pem}",
                f"--private-key={pem}",
                "-O",
                got,
                url,
            ],
            ["curl", "-sS", "-f", "--cacert", trust, "--cert", pem, "-o", got, url],
        ]
        for command in commands:
            if shutil.which(str(command[0])) is None:
                continue

            def fetched(command: list[str | Path] = command) -> int:
                got.unlink(missing_ok=True)
                return subprocess.run(command, check=False, timeout=60).returncode

            if good:  # for a moment the worker of before may answer, too
                site.becomes(0, fetched)
            else:
                assert fetched() != 0
            assert (got.exists() and got.stat().st_size > 0) == good


def test_the_log_has_who_and_what_and_no_secret(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.publish("java", 1)
    printed = doit(site.config, "user", "add", "jan", "--group", "role:java")
    password = printed.strip().splitlines()[-1]
    with serving(site):
        assert site.status("/java/Packages", user=("jan", password)) == 200
        assert site.status(f"/java/Packages?token={password}", user=("jan", "wrong-word")) == 401
        assert site.status(f"/java/%00?token={password}", user=("jan", "wrong-word")) == 404
        requests.get(
            f"{site.url}/base/x",
            headers={"Referer": f"https://jan:{password}@x/"},
            verify=str(site.tls.certificate),
            timeout=20,
        )
        absolute(site, f"https://jan:{password}@127.0.0.1/java/Packages")
    log = site.state / "serve/access.log"
    assert log.stat().st_mode & 0o777 == 0o600
    lines = log.read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("127.0.0.1 jan [")
    assert '"GET /java/Packages" 200 ' in lines[0]
    assert '"GET /java/Packages" 401 ' in lines[1]
    coded = base64.b64encode(f"jan:{password}".encode()).decode()
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        text = file.read_text(errors="replace")
        assert not any(secret in text for secret in (password, "wrong-word", coded)), file


def absolute(site: Site, url: str) -> None:
    """A request line with a whole URL in it, as a proxy gets it."""
    trust = ssl.create_default_context(cafile=str(site.tls.certificate))
    host, port = site.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        trust.wrap_socket(plain, server_hostname=host) as line,
    ):
        line.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert b" 40" in line.recv(4096)


def test_a_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.publish("base", 1)
    log = site.state / "serve/access.log"
    with serving(site):
        with log.open("ab") as stream:
            stream.truncate(11 << 20)
        deadline = time.monotonic() + 30
        while not log.exists() or log.stat().st_size > 1 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while '"GET /base/Packages" 200' not in log.read_text():  # the old worker had the old one
            assert site.status("/base/Packages") == 200
            assert time.monotonic() < deadline
    assert log.with_name("access.log.1").stat().st_size >= 11 << 20
    assert log.stat().st_mode & 0o777 == 0o600


def test_old_protocols_are_not_spoken(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.publish("base", 1)
    with serving(site):
        host, port = site.url.removeprefix("https://").split(":")
        for version, good in (
            ("tls1", False),
            ("tls1_1", False),
            ("tls1_2", True),
            ("tls1_3", True),
        ):
            done = subprocess.run(
                [
                    "openssl",
                    "s_client",
                    f"-{version}",
                    "-cipher",
                    "ALL:@SECLEVEL=0",
                    "-connect",
                    f"{host}:{port}",
                ],
                input=b"",
                check=False,
                capture_output=True,
                timeout=60,
            )
            assert (b"Server certificate" in done.stdout) == good, version
