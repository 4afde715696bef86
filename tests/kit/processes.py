"""Processes: alive, ended, or left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tasks.layout import Layout
from tasks.system.files import mounts_below


def alive(pid: int) -> bool:
    """True for a process that exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid: int) -> bool:
    """Wait for a process that must end by itself."""
    return eventually(lambda: not alive(pid))


def eventually(
    holds: Callable[[], object], seconds: float = 20.0, meanwhile: Callable[[], object] = bool
) -> bool:
    """Wait until a condition holds; False if it does not within the time limit."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        meanwhile()
        time.sleep(0.01)
    return True


def processes_naming(path: Path) -> list[str]:
    """Command lines of processes that have a path as an argument."""
    commands = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(path) in words:
            commands.append(b" ".join(words).decode())
    return commands


def processes_of(place: Path) -> list[str]:
    """Command lines of living processes that work on `place`.

    Those that name a path below it, and those in a sandbox: in a mount namespace of their own, they
    see something below it (proc(5), mountinfo; an overlay does not tell where its layers are).
    """
    commands = []
    host = Path("/proc/self/ns/mnt").readlink()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                mounts = (entry / "mountinfo").read_text(errors="replace")
                apart = (entry / "ns/mnt").readlink() != host
            except OSError:
                continue
            if str(place) in words or (apart and str(place) in mounts):
                commands.append(words.replace("\0", " "))
    return commands


def leftovers_of_kill(layout: Layout) -> list[str]:
    """Processes and mounts of a site after the kernel had time to remove the namespaces."""
    deadline = time.monotonic() + 20
    while (left := processes_of(layout.state)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [*left, *map(str, mounts_below(layout.site))]
