"""Chroots in namespaces of their own: what is mounted is data, and nothing outlives its parent.

A Sandbox is a plan: layers, mounts, environment. `run` carries it out through util-linux's
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tasks.errors import BinmillError, CommandFailed, OutOfMemory
from tasks.system import copy_fallback
from tasks.system.command import Done, require_root, started, stop
from tasks.system.disk_space import explain_full_disk
from tasks.system.files import closed_folder, remove_tree
from tasks.system.pseudo_terminal import PseudoTerminal
from tasks.system.sandbox_init import NO_OVERLAY, TEMPORARY
from tasks.system.terminal import say

# Imported, not run as a script: a script is compiled anew each time.
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
    """All that a command in a chroot sees. `layers`: directories, the topmost first, read-only.

    `workspace` is a directory of ours on the host for the upper layer; what the command writes
    is in `workspace/upper` afterwards.
    """

    hostname: str
    layers: tuple[Path, ...]
    workspace: Path
    binds: tuple[Bind, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: bool = False

    @property
    def upper(self) -> Path:
        return self.workspace / "upper"


@contextlib.contextmanager
def workspace(parent: Path, name: str, trash: Path) -> Iterator[Path]:
    """A throwaway place for one sandbox's upper layer; what a killed run left there is swept."""
    path = parent / name
    closed_folder(trash)  # now: on a full disk nothing could be deleted any more
    parent.mkdir(parents=True, exist_ok=True)
    if parent.stat().st_dev != trash.stat().st_dev:
        raise BinmillError(
            f"{parent} is another file system than {trash.parent}",
            f"umount it, and mount that at {trash.parent}: what was made is moved by renames",
        )
    remove_tree(path, trash)
    # a guest may leave setuid programs: nobody else on this host gets at them
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
    done, stands = _run(sandbox, argv, log, timeout)
    if _copies(sandbox, done.returncode, stands):
        done, stands = _run(sandbox, argv, log, timeout)
    if not stands:
        raise BinmillError(
            f"the sandbox {sandbox.hostname} could not be set up: {_last(done.stderr, log)}"
        )
    if check and done.returncode != 0:
        killed = _out_of_memory() > before
        failure = OutOfMemory if killed else CommandFailed
        why = "out of memory, the kernel killed some of it; " if killed else ""
        raise failure(
            f"{' '.join(argv[:4])} failed in {sandbox.hostname} (exit code {done.returncode}): "
            f"{why}{_last(done.stderr or done.stdout, log)}",
            f"read {log}" if log else "",
        )
    return done


def _out_of_memory() -> int:
    """How many processes this kernel has killed for want of memory (its vmstat; since 4.13)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _run(
    sandbox: Sandbox, argv: Sequence[str], log: Path | None, timeout: float | None
) -> tuple[Done, bool]:
    """One attempt: how it ended, and whether the sandbox stood."""
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
            raise CommandFailed(
                f"{argv[0]} in {sandbox.hostname} did not end within {timeout:g} s",
                f"its output is in {log}" if log else "",
            ) from late
        stands = _stands(sandbox, plan)
    return Done(tuple(argv), process.returncode, _text(stdout), _text(stderr)), stands


def enter(sandbox: Sandbox, argv: Sequence[str]) -> int:
    """Run a command inside for a person; returns its exit code.

    On a terminal it gets a pseudo terminal of its own, so that a shell inside has job control
    and the caller's session keeps its terminal. Elsewhere it inherits the three streams.
    """
    code, stands = _enter(sandbox, argv)
    if _copies(sandbox, code, stands):
        code, _ = _enter(sandbox, argv)
    return code if code >= 0 else 128 - code  # as a shell tells of a signal


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
            stop(process)  # before anybody looks at what it has written
            _stands(sandbox, plan)


def _stands(sandbox: Sandbox, plan: int) -> bool:
    """Whether the sandbox stood; where its root is a copy, the upper layer is made by now."""
    if copy_fallback.is_copied(sandbox.workspace):
        copy_fallback.gather(sandbox.workspace)
    return os.fstat(plan).st_size == 0


def _copies(sandbox: Sandbox, code: int, stands: bool) -> bool:
    """Copy the layers where overlayfs was refused; whether it was. It is said, and remembered."""
    if stands or code != NO_OVERLAY:
        return False
    say(
        f"  {sandbox.hostname}: no overlayfs for {sandbox.workspace}; its layers are copied, which "
        "takes time and disk"
    )
    copy_fallback.spread(sandbox.layers, sandbox.workspace)
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
    """The plan in an anonymous file that the first process, of the same interpreter, inherits.

    It empties the file when the sandbox stands and the command is about to start.
    """
    raw = marshal.dumps(
        {
            "hostname": sandbox.hostname,
            "layers": [str(layer) for layer in sandbox.layers],
            "workspace": str(sandbox.workspace),
            "binds": [asdict(bind) for bind in sandbox.binds],
            "environment": dict(sandbox.environment),
            "network": sandbox.network,
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


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def _last(text: str, log: Path | None) -> str:
    if log is not None:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 4000))
            text = _text(stream.read())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it printed nothing"
