"""A `doit serve` that runs for days, while users, generations and certificates change.

wget(1) and curl(1) fetch from it, as on clients.
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


class ServedSite:
    """A site for the real `doit serve`."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder, self.state = folder, folder / "state"
        self.config = folder / "config.toml"
        self.config.write_text(CONFIG + ACCESS.format(port=port))
        self.tls = certificates.self_signed(folder)
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
        """The status of a GET with a client certificate, NAME.pem in the folder, or a password."""
        pem = str(self.folder / certificate) if certificate else None
        return requests.get(
            self.url + path, cert=pem, auth=user, verify=str(self.tls.certificate), timeout=20
        ).status_code


def wait_for(expected: int, ask: Callable[[], int]) -> None:
    """Ask until this is the answer: the server looks for changes once per second."""
    deadline = time.monotonic() + 30
    while (answer := ask()) != expected:
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)


@contextlib.contextmanager
def serving(site: ServedSite) -> Iterator[Path]:
    """Run `doit serve` for the length of the block; yields the file with its output."""
    output = site.folder / "output"
    with output.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "doit", "serve"],
            cwd=PROJECT,
            stdout=stream,
            stderr=stream,
            env={**os.environ, "BINMILL_CONFIG": str(site.config), "PYTHONUNBUFFERED": "1"},
        )
        try:
            deadline = time.monotonic() + 60
            while "Ctrl-C ends it" not in output.read_text():
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield output
        finally:
            process.terminate()  # not SIGINT, which processes in the background ignore
            assert process.wait(30) == 128 + signal.SIGTERM, output.read_text()


def test_running_server_follows_changes(tmp_path: Path) -> None:
    site = ServedSite(tmp_path)
    for name in ("base", "java"):
        site.publish(name, 1)
    with serving(site) as output:
        assert f"{site.url}/java/  role:java" in output.read_text()
        assert site.status("/base/Packages") == 200
        assert site.status("/java/Packages") == 401

        # the first certificate: nginx has not requested any before
        doit(site.config, "user", "add", "jill", "--group", "role:java", "--certificate")
        (tmp_path / "secrets/clients/jill.pem").rename(tmp_path / "jill.pem")
        wait_for(200, lambda: site.status("/java/Packages", "jill.pem"))
        assert site.status("/mirror/site.acme/distfiles/x", "jill.pem") == 401
        fetch_with_certificate(site)

        # other groups, then revoked: a copy of it no longer works
        doit(site.config, "user", "add", "jill", "--group", "site:acme", "--certificate")
        wait_for(401, lambda: site.status("/java/Packages", "jill.pem"))
        (tmp_path / "secrets/clients/jill.pem").rename(tmp_path / "jill.pem")
        wait_for(404, lambda: site.status("/mirror/site.acme/distfiles/x", "jill.pem"))
        with requests.Session() as session:  # also on a connection that is already open
            session.trust_env = False  # a CA of the machine would be used before ours
            session.cert, session.verify = str(tmp_path / "jill.pem"), str(site.tls.certificate)
            secret = f"{site.url}/mirror/site.acme/distfiles/x"
            # at first a worker with the old rules may answer; it ends with its connections
            wait_for(404, lambda: session.get(secret, timeout=20).status_code)
            doit(site.config, "user", "remove", "jill")
            wait_for(401, lambda: session.get(secret, timeout=20).status_code)
        assert site.status("/base/Packages") == 200

        # a generation with a restricted package is closed to the public until the next one
        site.publish("base", 2, licence="Oracle")
        wait_for(404, lambda: site.status("/base/Packages"))
        assert (
            "closed: /base/ has packages that public may not fetch: a-b/c-1" in output.read_text()
        )
        site.publish("base", 3)
        wait_for(200, lambda: site.status("/base/Packages"))

        # a certificate that does not match its key is not loaded until the key arrives
        old = site.tls.certificate.read_text()
        renewed = certificates.self_signed(tmp_path / "renewed")
        shutil.copy(renewed.certificate, site.tls.certificate)
        deadline = time.monotonic() + 30
        while "nginx rejects its new configuration" not in output.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert output.read_text().count("nginx rejects its new configuration") == 1
        shutil.copy(renewed.key, site.tls.key)

        def status_with_renewed() -> int:
            with contextlib.suppress(requests.exceptions.SSLError):
                return site.status("/base/Packages")
            return 0

        wait_for(200, status_with_renewed)
        assert old != site.tls.certificate.read_text()


def fetch_with_certificate(site: ServedSite) -> None:
    """Fetch by wget and curl with a certificate, as docs/serving.md says."""
    pem, trust = site.folder / "jill.pem", site.tls.certificate
    target = site.folder / "file"
    for path, allowed in (("/java/Packages", True), ("/mirror/site.acme/distfiles/x", False)):
        url = site.url + path
        commands: list[list[str | Path]] = [
            [
                *("wget", "-q", "-t", "1", "-O", target, f"--ca-certificate={trust}"),
                *(f"--certificate={pem}", f"--private-key={pem}", url),
            ],
            ["curl", "-sS", "-f", "--cacert", trust, "--cert", pem, "-o", target, url],
        ]
        for command in commands:
            if shutil.which(str(command[0])) is None:
                continue

            def exit_code(command: list[str | Path] = command) -> int:
                target.unlink(missing_ok=True)
                return subprocess.run(command, check=False, timeout=60).returncode

            if allowed:  # for a moment the old worker may answer
                wait_for(0, exit_code)
            else:
                assert exit_code() != 0
            assert (target.exists() and target.stat().st_size > 0) == allowed


def test_access_log_has_users_and_paths_and_no_secrets(tmp_path: Path) -> None:
    site = ServedSite(tmp_path)
    site.publish("java", 1)
    output = doit(site.config, "user", "add", "jan", "--group", "role:java")
    password = output.strip().splitlines()[-1]
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
        request_absolute(site, f"https://jan:{password}@127.0.0.1/java/Packages")
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


def request_absolute(site: ServedSite, url: str) -> None:
    """Send a request line with a complete URL, as for a proxy."""
    trust = ssl.create_default_context(cafile=str(site.tls.certificate))
    host, port = site.url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        trust.wrap_socket(plain, server_hostname=host) as line,
    ):
        line.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert b" 40" in line.recv(4096)


def test_full_access_log_is_rotated(tmp_path: Path) -> None:
    site = ServedSite(tmp_path)
    site.publish("base", 1)
    log = site.state / "serve/access.log"
    with serving(site):
        with log.open("ab") as stream:
            stream.truncate(11 << 20)
        deadline = time.monotonic() + 30
        while not log.exists() or log.stat().st_size > 1 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while '"GET /base/Packages" 200' not in log.read_text():  # the old worker has the old log
            assert site.status("/base/Packages") == 200
            assert time.monotonic() < deadline
    assert log.with_name("access.log.1").stat().st_size >= 11 << 20
    assert log.stat().st_mode & 0o777 == 0o600


def test_old_tls_versions_are_refused(tmp_path: Path) -> None:
    site = ServedSite(tmp_path)
    site.publish("base", 1)
    with serving(site):
        host, port = site.url.removeprefix("https://").split(":")
        connect = ("-cipher", "ALL:@SECLEVEL=0", "-connect", f"{host}:{port}")
        for version in ("tls1", "tls1_1", "tls1_2", "tls1_3"):
            session = subprocess.run(
                ["openssl", "s_client", f"-{version}", *connect],
                input=b"",
                check=False,
                capture_output=True,
                timeout=60,
            )
            modern = version in ("tls1_2", "tls1_3")
            assert (b"Server certificate" in session.stdout) == modern, version
