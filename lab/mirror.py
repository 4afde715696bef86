"""The lab's mirror: nginx on the loopback interface, with all its files inside the lab."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from lab.upstream import Upstream
from tasks.errors import CommandFailed, HostLacks
from tasks.system.command import started
from tasks.system.files import write_atomic

_START_SECONDS = 10.0
# One process of the same user: it can read what its caller can, and ends with it.
_CONFIGURATION = """\
daemon off;
master_process off;
pid {server}/nginx-{port}.pid;
error_log {server}/error-{port}.log;
events {{ worker_connections 256; }}
http {{
    default_type application/octet-stream;
    access_log {server}/access-{port}.log;
    client_body_temp_path {server}/temporary;
    proxy_temp_path {server}/temporary;
    fastcgi_temp_path {server}/temporary;
    uwsgi_temp_path {server}/temporary;
    scgi_temp_path {server}/temporary;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        autoindex on;
        location = /lab {{ return 200 "{identity}"; }}
    }}
}}
"""


@contextlib.contextmanager
def serving(directory: Path, port: int) -> Iterator[str]:
    """Serve the mirror on 127.0.0.1 during the block; give its URL, without a slash at the end.

    Port 0 means any free one. Raises HostLacks without nginx, CommandFailed if it does not answer.
    """
    lab = Upstream(directory.resolve())
    lab.facts()
    port = port or _free_port()
    url = f"http://127.0.0.1:{port}"
    if _answers(port):
        if _identity_at(url) != _identity(lab):
            raise HostLacks("lab-port-in-use", port=port)
        yield url  # this lab is already being served
        return
    log = lab.server / f"error-{port}.log"
    (lab.server / "temporary").mkdir(parents=True, exist_ok=True)
    settings = lab.server / f"nginx-{port}.conf"
    write_atomic(
        settings,
        _CONFIGURATION.format(
            server=lab.server, port=port, root=lab.mirror, identity=_identity(lab)
        ),
    )
    # -e: nginx opens a log before it reads its configuration, by default a compiled-in one
    command = ("nginx", "-e", log, "-p", lab.server, "-c", settings)
    with started(*command, orphaned="TERM") as process:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CommandFailed("lab-mirror-silent", port=port, log=log)
            time.sleep(0.02)
        yield url


def serve(directory: Path, port: int) -> None:
    """Serve until the process is interrupted."""
    with serving(directory, port) as url:
        print(f"the lab's mirror is at {url} (stop it with Ctrl-C)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


def _identity(lab: Upstream) -> str:
    """Return a text that distinguishes this lab's mirror from anything else on its port."""
    return hashlib.sha256(f"{lab.directory} {lab.facts()}".encode()).hexdigest()


def _identity_at(url: str) -> str:
    import requests

    try:
        return requests.get(f"{url}/lab", timeout=5).text
    except requests.RequestException:
        return ""


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
