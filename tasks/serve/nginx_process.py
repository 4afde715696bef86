"""The real nginx, running the policy: for a client's proof, the demo and small sites.

nginx gets two things open, which it would else open itself: the socket, so that a port is ours
before anything is told of it, and the folders, so that a worker without rights need not find the
way to them.
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
from tasks.serve.nginx import Clients, Tls
from tasks.serve.policy import PUBLIC, Door
from tasks.system.command import run, started
from tasks.system.files import write_atomic

ANY_PORT = "127.0.0.1:0"
_START_SECONDS = 10.0


@dataclass(frozen=True)
class Server:
    """A running nginx: where it answers, and how it is told of a change."""

    url: str
    scratch: Path
    _text: Callable[[Sequence[Door], Clients | None], str]
    _process: subprocess.Popen[bytes]

    def change(self, doors: Sequence[Door], clients: Clients | None = None) -> None:
        """Take up other doors, clients, or what the files of `tls` have become.

        Requests that have begun are completed by the old worker. Raises BinmillError, and goes on
        as before, if nginx would not take it.
        """
        file = self.scratch / "nginx.conf"
        candidate = self.scratch / "next.conf"
        write_atomic(candidate, self._text(doors, clients))
        asked = run(
            "nginx",
            "-t",
            "-q",
            "-e",
            self.scratch / "test.log",
            "-p",
            self.scratch,
            "-c",
            candidate,
            check=False,
            timeout=60,
        )
        if asked.returncode != 0:
            said = asked.stderr.strip().splitlines() or ["no reason given"]
            raise BinmillError(
                f"nginx does not take the change: {said[0]}", "it goes on with what it had"
            )
        candidate.replace(file)
        self._process.send_signal(signal.SIGHUP)

    def ended(self) -> bool:
        """Whether nginx is gone, which it should not be."""
        return self._process.poll() is not None


@contextlib.contextmanager
def serving(
    doors: Sequence[Door],
    state: Path,
    scratch: Path,
    listen: str = ANY_PORT,
    *,
    tls: Tls | None = None,
    passwords: Path | None = None,
    worker: str = "nobody",
) -> Iterator[str]:
    """nginx over `doors` while the block runs, which never change; gives the base URL."""
    with running(
        doors, state, scratch, listen, tls=tls, passwords=passwords, worker=worker
    ) as server:
        yield server.url


@contextlib.contextmanager
def running(
    doors: Sequence[Door],
    state: Path,
    scratch: Path,
    listen: str = ANY_PORT,
    *,
    tls: Tls | None = None,
    passwords: Path | None = None,
    clients: Clients | None = None,
    worker: str = "nobody",
    log: Path | None = None,
) -> Iterator[Server]:
    """nginx over `doors` while the block runs, told of changes by what this gives.

    `passwords` is the folder of password files, wanted where a door is not public; `log` gets a
    line per request. Raises HostLacks for a port, a program or a user that is not to be had,
    BinmillError for files that cannot be used.
    """
    nginx.check_path(str(state))
    restricted = any(door.group != PUBLIC for door in doors)
    if restricted and passwords is None:
        raise BinmillError("a group without password files is not served")
    if tls:
        check_tls(tls)
    state.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(_listening(listen))
        address = _shown(ours)
        shown = [_opened(stack, folder) for folder in (state, passwords) if folder is not None]

        def text(doors: Sequence[Door], clients: Clients | None) -> str:
            block = nginx.server(
                doors, _path(shown[0]), _path(shown[-1]), address, tls, clients=clients
            )
            return nginx.main(block, scratch, _worker(worker, state, doors), log)

        if log:
            log.touch(mode=0o600)  # who asked for what is nobody else's business
        write_atomic(scratch / "nginx.conf", text(doors, clients))
        pid_file = scratch / "nginx.pid"
        pid_file.unlink(missing_ok=True)  # of a killed run
        process = stack.enter_context(
            started(
                "nginx",
                "-p",
                scratch,
                "-e",
                scratch / "error.log",
                "-c",
                scratch / "nginx.conf",
                # nginx's own way to take over a socket, made for its upgrades
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "NGINX": f"{ours.fileno()};"},
                stderr=subprocess.PIPE,
                pass_fds=(ours.fileno(), *shown),
                orphaned="TERM",
            )
        )
        _wait(process, address, pid_file)
        ours.close()
        yield Server(f"{'https' if tls else 'http'}://{address}", scratch, text, process)


def check_tls(tls: Tls) -> None:
    """Raise BinmillError for a certificate that has expired, or a file that cannot be read."""
    for what, file in (("certificate", tls.certificate), ("certificate_key", tls.key)):
        try:
            file.open("rb").close()
        except OSError as error:
            raise BinmillError(
                f"{file} cannot be read: {error.strerror}", f"set [serve] {what} in config.toml"
            ) from error
    asked = run(
        "openssl",
        "x509",
        "-noout",
        "-enddate",
        "-checkend",
        "0",
        "-in",
        tls.certificate,
        check=False,
        timeout=60,
    )
    dated = [line.partition("=")[2] for line in asked.stdout.splitlines() if "notAfter=" in line]
    if not dated:
        raise BinmillError(f"{tls.certificate} is no certificate in PEM", "see [serve] certificate")
    if asked.returncode != 0:
        raise BinmillError(
            f"the certificate {tls.certificate} has expired ({dated[0]})",
            "renew it; clients would refuse it",
        )


def _listening(listen: str) -> socket.socket:
    """A socket that listens on ADDRESS:PORT; port 0 is any that is free."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=511)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise HostLacks(
            f"nginx did not start on {listen}: {why}",
            "set [binhost] listen in config.toml to an address and a port that are free",
        ) from error


def _shown(ours: socket.socket) -> str:
    host, port = ours.getsockname()[:2]
    return f"[{host}]:{port}" if ours.family == socket.AF_INET6 else f"{host}:{port}"


def _opened(stack: contextlib.ExitStack, folder: Path) -> int:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _path(descriptor: int) -> str:
    """An open folder as a path (proc(5)): every process may follow those of its own."""
    return f"/proc/self/fd/{descriptor}"


def _worker(name: str, state: Path, doors: Sequence[Door]) -> str:
    """Who answers when root starts nginx, as "USER GROUP"; "" for anybody else's nginx.

    Raises HostLacks for a user there is not, or who is root; BinmillError for a folder that this
    user could not enter.
    """
    if os.geteuid() != 0:
        return ""
    try:
        user = pwd.getpwnam(name)
        group = grp.getgrgid(user.pw_gid).gr_name
    except KeyError:
        raise HostLacks(
            f"there is no user {name!r}", "set [serve] worker to one there is"
        ) from None
    if user.pw_uid == 0:
        raise HostLacks("the web server does not answer as root", "set [serve] worker to another")
    for folder in [state, *(state / Path(door.folder).parts[0] for door in doors)]:
        if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
            raise BinmillError(f"{name} could not enter {folder}", f"chmod o+x {folder}")
    return f"{name} {group}"


def _wait(process: subprocess.Popen[bytes], listen: str, pid_file: Path) -> None:
    """Until nginx has read its configuration and written its pid file; requests wait so long."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None  # noqa: S101
            said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            fatal = [line for line in said if "[emerg]" in line] or said or ["no reason given"]
            raise HostLacks(
                f"nginx did not start on {listen}: {fatal[0]}",
                "see [serve] in config.toml: certificate and key must fit each other",
            )
        if pid_file.exists():
            return
        time.sleep(0.02)
    raise HostLacks(f"nginx did not answer on {listen}", "is the machine out of memory?")
