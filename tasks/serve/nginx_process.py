"""A running nginx with the site's policy: for client tests, the demo and small sites.

nginx inherits the listening socket, so that a port that is taken is known before anything is
served, and the open folders, so that its unprivileged worker needs no access to their parents.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import BinmillError, HostLacks
from tasks.serve import nginx
from tasks.serve.certificates import check_tls
from tasks.serve.nginx import ClientCertificates, Tls
from tasks.serve.policy import PUBLIC, Location
from tasks.system.command import run, started
from tasks.system.files import write_atomic

ANY_PORT = "127.0.0.1:0"
_START_SECONDS = 10.0


@dataclass(frozen=True)
class Server:
    """A running nginx: its base URL and the folder of its own files."""

    url: str
    scratch: Path
    _config: Callable[[Sequence[Location], ClientCertificates | None], str]
    _process: subprocess.Popen[bytes]

    def reload(
        self, locations: Sequence[Location], clients: ClientCertificates | None = None
    ) -> None:
        """Load other locations and client certificates, and the files of `tls` again.

        The old worker completes the requests that have begun. If nginx rejects the configuration,
        raises BinmillError and keeps the previous one.
        """
        file = self.scratch / "nginx.conf"
        candidate = self.scratch / "next.conf"
        write_atomic(candidate, self._config(locations, clients))
        paths = ("-e", self.scratch / "test.log", "-p", self.scratch, "-c", candidate)
        test = run("nginx", "-t", "-q", *paths, check=False, timeout=60)
        if test.returncode != 0:
            reason, *_ = test.stderr.strip().splitlines() or ["no reason given"]
            raise BinmillError("nginx-rejects-change", reason=reason)
        candidate.replace(file)
        self._process.send_signal(signal.SIGHUP)

    def has_ended(self) -> bool:
        """Tell whether nginx has ended, which it should not by itself."""
        return self._process.poll() is not None


@contextlib.contextmanager
def serving(
    locations: Sequence[Location],
    state: Path,
    scratch: Path,
    listen: str = ANY_PORT,
    *,
    tls: Tls | None = None,
    passwords: Path | None = None,
    clients: ClientCertificates | None = None,
    worker: str = "nobody",
    log: Path | None = None,
) -> Iterator[Server]:
    """Run nginx with these locations for the length of the block.

    `passwords` is the folder of password files, required for a restricted location; `log` gets a
    line per request. Raises HostLacks if the port, the program or the user is not available,
    BinmillError for files that cannot be used.
    """
    nginx.check_path(str(state))
    if passwords is None and any(location.group != PUBLIC for location in locations):
        raise ValueError("restricted locations need password files")
    if tls:
        check_tls(tls)
    state.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(listen))
        address = _address(listener)
        folders = [_open_folder(stack, folder) for folder in (state, passwords) if folder]

        def config(locations: Sequence[Location], clients: ClientCertificates | None) -> str:
            root, users = _proc_path(folders[0]), _proc_path(folders[-1])
            block = nginx.server_block(locations, root, users, address, tls, clients=clients)
            return nginx.main_config(block, scratch, _worker(worker, state, locations), log)

        if log:
            log.touch(mode=0o600)  # requests are private
        file = scratch / "nginx.conf"
        write_atomic(file, config(locations, clients))
        pid_file = scratch / "nginx.pid"
        pid_file.unlink(missing_ok=True)  # of a killed run
        process = stack.enter_context(
            started(
                *("nginx", "-p", scratch, "-e", scratch / "error.log", "-c", file),
                # nginx's own way to inherit a socket, made for its upgrades
                env={
                    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                    "NGINX": f"{listener.fileno()};",
                },
                stderr=subprocess.PIPE,
                pass_fds=(listener.fileno(), *folders),
                orphaned="TERM",
            )
        )
        _await_start(process, address, pid_file)
        listener.close()
        yield Server(f"{'https' if tls else 'http'}://{address}", scratch, config, process)


def _listener(listen: str) -> socket.socket:
    """A socket that listens on ADDRESS:PORT; port 0 is any free one."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=511)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise HostLacks("nginx-address-unavailable", listen=listen, reason=reason) from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{host}:{port}"


def _open_folder(stack: contextlib.ExitStack, folder: Path) -> int:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _proc_path(descriptor: int) -> str:
    """The path of an open folder by proc(5), which a process may follow for its own."""
    return f"/proc/self/fd/{descriptor}"


def worker_uid(name: str) -> int:
    """The user id of nginx's worker, which must be able to read password files."""
    user, _ = _account(name)
    return user.pw_uid


def _account(name: str) -> tuple[pwd.struct_passwd, str]:
    """A user and the name of its group; raises HostLacks if there is no such user."""
    try:
        user = pwd.getpwnam(name)
        return user, grp.getgrgid(user.pw_gid).gr_name
    except KeyError:
        raise HostLacks("nginx-worker-unknown", user=name) from None


def _worker(name: str, state: Path, locations: Sequence[Location]) -> str:
    """The account of nginx's worker, as "USER GROUP", when root starts nginx; else "".

    Raises HostLacks for a user that does not exist or is root; BinmillError for a folder that
    this user cannot enter.
    """
    if os.geteuid() != 0:
        return ""
    user, group = _account(name)
    if user.pw_uid == 0:
        raise HostLacks("nginx-worker-is-root", user=name)
    for folder in [state, *(state / Path(location.folder).parts[0] for location in locations)]:
        if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
            raise BinmillError("nginx-worker-locked-out", user=name, folder=folder)
    return f"{name} {group}"


def _await_start(process: subprocess.Popen[bytes], listen: str, pid_file: Path) -> None:
    """Wait until nginx has read its configuration and written its pid file.

    Requests that come before that wait in the socket's queue.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None  # noqa: S101
            lines = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            fatal = [line for line in lines if "[emerg]" in line] or lines or ["no reason given"]
            raise HostLacks("nginx-not-started", listen=listen, reason=fatal[0])
        if pid_file.exists():
            return
        time.sleep(0.02)
    raise HostLacks("nginx-start-timeout", listen=listen, seconds=_START_SECONDS)
