"""The one way to run a program.

Programs are argument vectors, never shell strings. Each gets its own session, dies with the
thread that started it (prctl(2), PR_SET_PDEATHSIG), and takes its whole process group along
when it is stopped. plumbum finds and starts them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from tasks.errors import CommandFailed, HostLacks
from tasks.system import cancel

Argument = str | os.PathLike[str]

_PIPE_USUAL = 64 << 10
_GRACE_SECONDS = 5.0
# The kernel ends a program when its parent is gone, but not what the program has started. So
# something in its process group waits for the end of a pipe that only this process can write to.
_WATCHED = """(trap '' TERM; read -r _ </dev/fd/"$0"; kill -KILL 0) >/dev/null 2>&1 & exec "$@" """
# Where a missing program comes from, by Debian package.
_PACKAGES = {
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "gpg": "gnupg",
    "gpgv": "gpgv",
    "xz": "xz-utils",
    "git": "git",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "mmdebstrap": "mmdebstrap",
    "zstd": "zstd",
    "bzip2": "bzip2",
}


@dataclass(frozen=True)
class Done:
    """The end of a program: `returncode` (negative: a signal) and its output, as text."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def run(
    *argv: Argument,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
    timeout: float | None = None,
    log: Path | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
    family: bool = False,
) -> Done:
    """Run a program to its end and return how it ended.

    `timeout` is in seconds, `family` as in `started`. With `log`, both output streams are appended
    to that file, and the result has its last lines as `stderr`. Raises CommandFailed when the
    program exits non-zero (unless `check` is false) or exceeds its time, HostLacks when there is no
    such program.
    """
    with contextlib.ExitStack() as stack:
        out: IO[bytes] | int = subprocess.PIPE
        err: IO[bytes] | int = subprocess.PIPE
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            out = stack.enter_context(log.open("ab"))
            err = subprocess.STDOUT
        stdin = subprocess.PIPE if input is not None else subprocess.DEVNULL
        process = stack.enter_context(
            started(
                *argv,
                cwd=cwd,
                env=env,
                stdin=stdin,
                stdout=out,
                stderr=err,
                pass_fds=pass_fds,
                family=family,
            )
        )
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired as late:
            code = "program-timeout" if log is None else "program-timeout-logged"
            raise CommandFailed(
                code, command=_words(argv), seconds=timeout or 0.0, log=log
            ) from late
    error_output = tail(log) if log is not None else decode(stderr)
    done = Done(tuple(map(str, argv)), process.returncode, decode(stdout), error_output)
    if check and done.returncode != 0:
        raise CommandFailed(
            "program-failed" if log is None else "program-failed-logged",
            command=_words(argv),
            outcome=_outcome(done.returncode),
            cause=last_line(done.stderr or done.stdout),
            log=log,
        )
    return done


@contextlib.contextmanager
def started(
    *argv: Argument,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int | None = subprocess.DEVNULL,
    stdout: IO[bytes] | int | None = subprocess.DEVNULL,
    stderr: IO[bytes] | int | None = None,
    pass_fds: Sequence[int] = (),
    orphaned: str = "KILL",
    family: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program, for pipes and servers; however the block ends, nothing of it is left.

    `orphaned` is the signal that it gets when this process is killed: TERM for one that ends
    processes of its own when it gets that. With `family`, all that it has started is killed then,
    too.

    `env` replaces the caller's environment. Raises Cancelled, at its end, if the work of this
    context was cancelled meanwhile (system.cancel).
    """
    cancel.check()
    program = locate(str(argv[0]))
    arguments: list[str | os.PathLike[str]] = ["--pdeathsig", orphaned, "--"]
    with _watched() if family else contextlib.nullcontext(((), ())) as (watcher, pipe):
        arguments += [*watcher, program, *(str(a) for a in argv[1:])]
        process: subprocess.Popen[bytes] = _command()(locate("setpriv"))[arguments].popen(
            cwd=str(cwd) if cwd else None,
            env=dict(os.environ if env is None else env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(*pass_fds, *pipe),
            start_new_session=True,
        )
        try:
            with cancel.ended_with_scope(lambda number: _send(process, number)):
                yield process
        finally:
            stop(process)


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a program's group from another thread than the one that waits for it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


@contextlib.contextmanager
def _watched() -> Iterator[tuple[Sequence[str], Sequence[int]]]:
    """Yield what to put before a program so that its group dies with this process, and a pipe."""
    reading, writing = os.pipe()  # kept open for writing here alone: it is not inherited
    try:
        yield (locate("sh"), "-c", _WATCHED, str(reading)), (reading,)
    finally:
        os.close(reading)
        os.close(writing)


def widen(pipe: IO[bytes], size: int = 1 << 20) -> None:
    """Let a pipe hold more, `size` or what is allowed, so that its two ends run side by side.

    An unprivileged user has a limit, and a share of pipe memory that others may have used up
    (pipe(7)).
    """
    while size > _PIPE_USUAL:
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
            return
        size //= 2


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program and its process group: TERM, a few seconds, KILL. Safe to call twice."""

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    if process.poll() is None:
        send(signal.SIGTERM)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            send(signal.SIGKILL)
            process.wait()
    send(signal.SIGKILL)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def locate(program: str) -> str:
    """The absolute path of a program; raises HostLacks that names the package to install."""
    if "/" in program:
        return program
    # Debian keeps nginx, unshare's friends and others out of a plain user's PATH.
    for folder in [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]:
        candidate = Path(folder or "/nonexistent", program)
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return str(candidate)
    package = _PACKAGES.get(program, program)
    raise HostLacks("program-missing", program=program, package=package)


def require_root(work: str) -> None:
    """Raise HostLacks unless this process is root; `work` is a verb phrase for the message."""
    if os.geteuid() != 0:
        raise HostLacks("root-needed", work=work)


@cache
def _command() -> Any:
    """The class of plumbum's commands, with nothing in its environment but what it is given."""
    # plumbum costs 60 ms to import; `doit list` must not pay for it
    from plumbum.machines.local import LocalCommand, LocalMachine

    class Machine(LocalMachine):  # type: ignore[misc]
        env: Mapping[str, str] = {}  # plumbum's own is a copy of os.environ, and has a PATH always

    class Command(LocalCommand):  # type: ignore[misc]
        machine = Machine()

    return Command


def _words(argv: Sequence[Argument]) -> str:
    words = [Path(argv[0]).name, *(str(a) for a in argv[1:4])]
    return " ".join(w if len(w) < 60 else w[:57] + "..." for w in words)


def _outcome(returncode: int) -> str:
    if returncode < 0:
        number = -returncode  # real-time signals have no name in signal.Signals
        has_name = number in set(signal.Signals)
        return f"killed by {signal.Signals(number).name if has_name else f'signal {number}'}"
    return f"exit code {returncode}"


def decode(output: bytes | None) -> str:
    """Decode a program's output; bytes that are no UTF-8 are replaced."""
    return (output or b"").decode("utf-8", "replace")


def tail(log: Path, size: int = 4000) -> str:
    """Read the end of a log."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - size))
        return decode(stream.read())


def last_line(output: str) -> str:
    """Return the last line of an output that is not empty: mostly the reason of a failure."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"


__all__ = [
    "Argument",
    "Done",
    "decode",
    "last_line",
    "locate",
    "require_root",
    "run",
    "started",
    "stop",
    "tail",
    "widen",
]
