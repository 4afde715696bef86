"""Chroots in namespaces of their own: mounts are data, and nothing outlives its parent.

A Sandbox is a plan: layers, mounts, environment. `run` executes a command in it by util-linux's
setpriv and unshare and a small first process (sandbox_init.py) that mounts, pivots and reaps.
All three of parent-death signal, pid namespace and kill-child are needed: any one alone leaves
survivors when doit is killed. Mounts are made in a private mount namespace only, so they can
neither leak to the host nor be walked into by a deletion there.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tasks.errors import BinmillError, CommandFailed, OutOfMemory
from tasks.system import cgroup, copy_fallback
from tasks.system.command import Done, decode, last_line, require_root, started, stop, tail
from tasks.system.disk_space import explain_full_disk
from tasks.system.files import private_folder, remove_tree
from tasks.system.notes import note
from tasks.system.pseudo_terminal import PseudoTerminal
from tasks.system.sandbox_init import NO_OVERLAY, TEMPORARY

# Imported, not run as a script: a script is compiled again each time.
_INIT = (
    f"import sys; sys.path.append({str(Path(__file__).parent)!r}); "
    "import sandbox_init; sys.exit(sandbox_init.main())"
)
_NAMESPACES = (
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--ipc",
    "--uts",
    "--cgroup",
)


# The code of a failed command: out of memory or not, with a log or without.
_CODES = {
    (False, False): "command-failed",
    (False, True): "command-failed-logged",
    (True, False): "command-out-of-memory",
    (True, True): "command-out-of-memory-logged",
}


@dataclass(frozen=True)
class Bind:
    """A host directory or file at an absolute path inside; read-only unless said otherwise.

    `source` is looked up on the host, before anything of the guest is mounted.
    """

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Sandbox:
    """Everything that a command in a chroot sees. `layers`: read-only, the topmost first.

    `workspace` is a directory of ours on the host for the upper layer; what the command writes
    is in `workspace/upper` afterwards. `tmpfs` has sizes in bytes by place: what is written there
    is in memory, and gone at the end.
    """

    hostname: str
    layers: tuple[Path, ...]
    workspace: Path
    binds: tuple[Bind, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: bool = False
    tmpfs: Mapping[str, int] = field(default_factory=dict)

    @property
    def upper(self) -> Path:
        return self.workspace / "upper"


@dataclass(frozen=True)
class Limits:
    """Limits of a command; 0: none.

    `seconds` until its end, `silence` in seconds without output, `output` and `memory` in bytes,
    `processes` at once. The last two need control groups (tasks.system.cgroup).
    """

    seconds: float = 0
    silence: float = 0
    output: int = 0
    memory: int = 0
    processes: int = 0


@dataclass(frozen=True)
class Ended:
    """The end of a command under limits.

    `stopped` says which limit ended it ("seconds", "silence", "output"), or "cancelled"; "" if it
    ended by itself. `memory` is the most that it used, in bytes; None if unknown.
    """

    returncode: int
    stopped: str
    memory: int | None
    out_of_memory: bool
    out_of_processes: bool


@contextlib.contextmanager
def workspace(parent: Path, name: str, trash: Path) -> Iterator[Path]:
    """Yield a folder for the upper layer of one sandbox, deleted at the end.

    What a killed run has left there is deleted first.
    """
    path = parent / name
    private_folder(trash)  # now: on a full disk nothing could be deleted any more
    parent.mkdir(parents=True, exist_ok=True)
    if parent.stat().st_dev != trash.stat().st_dev:
        raise BinmillError("work-on-another-disk", path=parent, state=trash.parent)
    remove_tree(path, trash)
    # a guest may leave setuid programs: no other user of this host must reach them
    path.mkdir(mode=0o700, parents=True)
    try:
        for part in ("upper", "work", "root", *TEMPORARY):
            (path / part).mkdir()
        (path / "upper").chmod(0o755)
        for part in TEMPORARY:
            (path / part).chmod(0o1777)
        with explain_full_disk(path):
            yield path
    finally:
        remove_tree(path, trash)


def run(
    sandbox: Sandbox,
    argv: Sequence[str],
    *,
    log: Path | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> Done:
    """Run a command inside, without a terminal. `timeout` in seconds; `log` gets its output.

    Raises CommandFailed when it fails (unless `check` is false), as OutOfMemory where that is why,
    and BinmillError when the sandbox itself could not be set up.
    """
    before = _out_of_memory()
    done, ready = _run(sandbox, argv, log, timeout)
    if _copy_instead(sandbox, done.returncode, ready):
        done, ready = _run(sandbox, argv, log, timeout)
    if not ready:
        cause = last_line(done.stderr if log is None else tail(log))
        raise BinmillError("sandbox-not-set-up", chroot=sandbox.hostname, cause=cause)
    if check and done.returncode != 0:
        killed = _out_of_memory() > before
        raise (OutOfMemory if killed else CommandFailed)(
            _CODES[killed, log is not None],
            command=" ".join(argv[:4]),
            chroot=sandbox.hostname,
            status=done.returncode,
            cause=last_line((done.stderr or done.stdout) if log is None else tail(log)),
            log=log,
        )
    return done


def run_limited(
    sandbox: Sandbox,
    argv: Sequence[str],
    *,
    log: Path,
    limits: Limits,
    cancelled: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run a command inside under limits; `log` gets its output.

    It is stopped as soon as `cancelled` returns true. The exit code is not judged. Raises
    BinmillError when the sandbox could not be set up.
    """
    while True:
        with cgroup.limited(limits.memory, limits.processes) as group:
            watch = _Watch(log, limits, cancelled)
            code, ready = _supervise(sandbox, argv, log, watch, group)
            ended = Ended(
                code if code >= 0 else 128 - code,
                watch.stopped,
                group.peak_memory(),
                group.was_out_of_memory(),
                group.was_out_of_processes(),
            )
        if ready or watch.stopped:
            return ended
        if not _copy_instead(sandbox, code, ready):
            cause = last_line(tail(log))
            raise BinmillError("sandbox-not-set-up", chroot=sandbox.hostname, cause=cause)


class _Watch:
    """Waits for the end of a process, or stops waiting at a limit: `stopped` says at which."""

    _LOOK_SECONDS = 1.0

    def __init__(self, log: Path, limits: Limits, cancelled: Callable[[], bool]) -> None:
        self._log, self._limits, self._cancelled = log, limits, cancelled
        self._start = self._last = time.monotonic()
        self._size = self._first_size = self._log_size()
        self.stopped = ""

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the process has ended or a limit is exceeded."""
        while not self.stopped:
            try:
                process.wait(self._LOOK_SECONDS)
                return
            except subprocess.TimeoutExpired:
                self.stopped = self._exceeded()

    def _exceeded(self) -> str:
        now, size, limits = time.monotonic(), self._log_size(), self._limits
        if size != self._size:
            self._size, self._last = size, now
        if self._cancelled():
            return "cancelled"
        if limits.seconds and now - self._start > limits.seconds:
            return "seconds"
        if limits.silence and now - self._last > limits.silence:
            return "silence"
        if limits.output and size - self._first_size > limits.output:
            return "output"
        return ""

    def _log_size(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return self._log.stat().st_size
        return 0


def _supervise(
    sandbox: Sandbox, argv: Sequence[str], log: Path, watch: _Watch, group: cgroup.Group
) -> tuple[int, bool]:
    """Run once; returns the exit code, and whether the sandbox was set up."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as out,
        _plan(sandbox, argv, terminal=False) as plan,
        started(
            *_joining(group),
            *_entry(sandbox, plan),
            env={},
            stdout=out,
            stderr=subprocess.STDOUT,
            pass_fds=(plan,),
        ) as process,
    ):
        watch.wait(process)
        stop(process)
        return process.returncode, _was_ready(sandbox, plan)


def _joining(group: cgroup.Group) -> tuple[str, ...]:
    """The words before a command that put it into a control group before it does anything."""
    if not group.folders:
        return ()
    join = 'for group in $0; do echo $$ >"$group/cgroup.procs" || exit 251; done; exec "$@"'
    return "sh", "-c", join, " ".join(map(str, group.folders))


def _out_of_memory() -> int:
    """Count the processes that this kernel has killed for lack of memory (vmstat; since 4.13)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _run(
    sandbox: Sandbox, argv: Sequence[str], log: Path | None, timeout: float | None
) -> tuple[Done, bool]:
    """Try once; returns how it ended, and whether the sandbox was set up."""
    with contextlib.ExitStack() as stack:
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        out = subprocess.PIPE if log is None else stack.enter_context(log.open("ab"))
        err = subprocess.PIPE if log is None else subprocess.STDOUT
        plan = stack.enter_context(_plan(sandbox, argv, terminal=False))
        process = stack.enter_context(
            started(*_entry(sandbox, plan), env={}, stdout=out, stderr=err, pass_fds=(plan,))
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as late:
            code = "program-timeout" if log is None else "program-timeout-logged"
            command = f"{argv[0]} in {sandbox.hostname}"
            raise CommandFailed(code, command=command, seconds=timeout or 0.0, log=log) from late
        ready = _was_ready(sandbox, plan)
    return Done(tuple(argv), process.returncode, decode(stdout), decode(stderr)), ready


def enter(sandbox: Sandbox, argv: Sequence[str]) -> int:
    """Run a command inside for a person; returns its exit code.

    On a terminal it gets a pseudo terminal of its own, so that a shell inside has job control
    and the caller's session keeps its terminal. Elsewhere it inherits the three streams.
    """
    code, ready = _enter(sandbox, argv)
    if _copy_instead(sandbox, code, ready):
        code, _ = _enter(sandbox, argv)
    return code if code >= 0 else 128 - code  # a signal, as a shell reports it


def _enter(sandbox: Sandbox, argv: Sequence[str]) -> tuple[int, bool]:
    terminal = all(os.isatty(number) for number in (0, 1, 2))
    with contextlib.ExitStack() as stack:
        plan = stack.enter_context(_plan(sandbox, argv, terminal=terminal))
        inner = stack.enter_context(PseudoTerminal()) if terminal else None
        stream = inner.inside if inner else None
        process = stack.enter_context(
            started(
                *_entry(sandbox, plan),
                env={},
                stdin=stream,
                stdout=stream,
                stderr=stream,
                pass_fds=(plan,),
            )
        )
        try:
            if inner:
                inner.relay()
            return process.wait(), os.fstat(plan).st_size == 0
        finally:
            stop(process)  # before what it has written is read
            _was_ready(sandbox, plan)


def _was_ready(sandbox: Sandbox, plan: int) -> bool:
    """Tell whether the sandbox was set up; where its root is a copy, make the upper layer."""
    if copy_fallback.is_copied(sandbox.workspace):
        copy_fallback.collect_changes(sandbox.workspace)
    return os.fstat(plan).st_size == 0


def _copy_instead(sandbox: Sandbox, code: int, ready: bool) -> bool:
    """Copy the layers where overlayfs was refused; returns whether it was."""
    if ready or code != NO_OVERLAY:
        return False
    note("layers-copied", chroot=sandbox.hostname, path=sandbox.workspace)
    copy_fallback.copy_layers(sandbox.layers, sandbox.workspace)
    return True


def _entry(sandbox: Sandbox, plan: int) -> list[str]:
    require_root(f"enter the chroot {sandbox.hostname}")
    network = () if sandbox.network else ("--net",)
    # -I -S: no site packages, no PYTHON* variables; the first process needs neither. Nor does it
    # get the caller's environment (env={} where it is started): /proc/1/environ is open to a guest
    return [
        "unshare",
        *_NAMESPACES,
        *network,
        "--",
        sys.executable,
        "-I",
        "-S",
        "-c",
        _INIT,
        str(plan),
    ]


@contextlib.contextmanager
def _plan(sandbox: Sandbox, argv: Sequence[str], *, terminal: bool) -> Iterator[int]:
    """Yield an anonymous file with the plan, for the first process, of the same interpreter.

    That empties the file when the sandbox is set up and the command is about to start.
    """
    raw = marshal.dumps(
        {
            "hostname": sandbox.hostname,
            "layers": [str(layer) for layer in sandbox.layers],
            "workspace": str(sandbox.workspace),
            "binds": [asdict(bind) for bind in sandbox.binds],
            "environment": dict(sandbox.environment),
            "network": sandbox.network,
            "tmpfs": dict(sandbox.tmpfs),
            "terminal": terminal,
            "copied": copy_fallback.is_copied(sandbox.workspace),
            "argv": list(argv),
        }
    )
    # overlayfs refuses what was mounted as volatile before: the machine may have crashed since,
    # but not while this workspace was there
    mark = sandbox.workspace / "work/work/incompat/volatile"
    with contextlib.suppress(FileNotFoundError):
        (mark / "dirty").unlink()
        mark.rmdir()
    descriptor = os.memfd_create("binmill-sandbox")
    try:
        os.write(descriptor, raw)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
