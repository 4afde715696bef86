"""Processes: alive, gone, or left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tasks.layout import Layout
from tasks.system.files import mounts_below


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid: int) -> bool:
    """Wait, with patience, for a process that must end by itself."""
    return eventually(lambda: not alive(pid))


def eventually(holds: object) -> bool:
    assert callable(holds)
    for _ in range(300):
        if holds():
            return True
        time.sleep(0.02)
    return False


def processes_naming(home: Path) -> list[str]:
    """Processes of any kind that were started for a GnuPG home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(home) in words:
            found.append(b" ".join(words).decode())
    return found


def processes_of(place: Path) -> list[str]:
    """Command lines of living processes that work on `place`.

    Those that name a path below it, and those in a sandbox: their root is an overlay whose upper
    layer is below it (proc(5), mountinfo).
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                mounts = (entry / "mountinfo").read_text(errors="replace")
            except OSError:
                continue
            if str(place) in words or f"upperdir={place}" in mounts:
                found.append(words.replace("\0", " "))
    return found


def leftovers_of_kill(layout: Layout) -> list[str]:
    """Processes and mounts of a site once the kernel had its time to take the namespaces down."""
    deadline = time.monotonic() + 20
    while (left := processes_of(layout.state)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [*left, *map(str, mounts_below(layout.site))]
