"""The lab's mirror: nginx over loopback, run by whoever runs it, with nothing outside the lab."""

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

_PATIENCE_SECONDS = 10.0
# One process, no user switch: it reads what its caller may read and ends with its caller.
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
    """The mirror on 127.0.0.1 for the length of the block; gives its address, without a slash.

    Port 0 takes a free one. Raises HostLacks without nginx, CommandFailed when it does not
    answer.
    """
    lab = Upstream(directory.resolve())
    lab.facts()
    port = port or _free_port()
    address = f"http://127.0.0.1:{port}"
    if _answers(port):
        if _identity_at(address) != _identity(lab):
            raise HostLacks(
                f"something else listens on port {port}", "make demo LAB_PORT=..., or end that"
            )
        yield address  # somebody serves this very lab already
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
    # -e: nginx would open its compiled-in log before it reads its configuration
    command = ("nginx", "-e", log, "-p", lab.server, "-c", settings)
    with started(*command, orphaned="TERM") as process:
        patience = time.monotonic() + _PATIENCE_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > patience:
                raise CommandFailed(
                    f"nginx does not serve the lab on port {port}",
                    f"read {log}; is the port taken? then choose another with --port",
                )
            time.sleep(0.02)
        yield address


def serve(directory: Path, port: int) -> None:
    """Serve until the process is interrupted."""
    with serving(directory, port) as address:
        print(f"the lab's mirror is at {address} (end it with Ctrl-C)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


def _identity(lab: Upstream) -> str:
    """What tells one lab's mirror from another's, and from anything else on its port."""
    return hashlib.sha256(f"{lab.directory} {lab.facts()}".encode()).hexdigest()


def _identity_at(address: str) -> str:
    import requests

    try:
        return requests.get(f"{address}/lab", timeout=5).text
    except requests.RequestException:
        return ""


def _answers(port: int) -> bool:
    with socket.socket() as plug:
        plug.settimeout(1)
        return plug.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        port: int = plug.getsockname()[1]
        return port
