"""Limits of memory and processes for one command, by a control group of its own.

The kernel's admin-guide/cgroup-v2.rst, and cgroup-v1/ where that is what the machine has. Where
neither can be used, as in many containers, there is no limit and nothing is measured.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TOP = Path("/sys/fs/cgroup")
_PREFIX = "binmill-"
_CONTROLLERS = ("memory", "pids")
_EMPTY_SECONDS = 5.0  # the kernel takes a moment to empty the group of ended processes


@dataclass(frozen=True)
class Group:
    """The folders of a control group: one for version 2, one for each controller of version 1.

    None at all where control groups cannot be used.
    """

    folders: tuple[Path, ...] = ()

    def peak_memory(self) -> int | None:
        """The most memory that it used at once, in bytes; None if unknown."""
        return self._number(r"(\d+)", "memory.peak", "memory.max_usage_in_bytes")

    def was_out_of_memory(self) -> bool:
        """True if the kernel killed one of its processes for lack of memory."""
        count = self._number(r"^oom_kill (\d+)", "memory.events", "memory.oom_control")
        return bool(count)

    def was_out_of_processes(self) -> bool:
        """True if one of its processes could not start another because of the limit."""
        return bool(self._number(r"^max (\d+)", "pids.events"))

    def _number(self, pattern: str, *names: str) -> int | None:
        for folder in self.folders:
            for name in names:
                with contextlib.suppress(OSError):
                    text = (folder / name).read_text(encoding="ascii")
                    if match := re.search(pattern, text, re.MULTILINE):
                        return int(match[1])
        return None


@contextlib.contextmanager
def limited(memory: int = 0, processes: int = 0) -> Iterator[Group]:
    """Yield a control group with limits: `memory` in bytes, `processes` at once; 0: no limit.

    The command joins it by writing to cgroup.procs of each folder. It is deleted at the end, when
    none of its processes is left.
    """
    group = _create(f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        for folder in group.folders:
            _set(folder, memory, "memory.max", "memory.limit_in_bytes")
            _set_swap(folder, memory)
            _set(folder, processes, "pids.max")
        yield group
    finally:
        _delete(group)


def _sweep(parent: Path) -> None:
    """Delete the groups below `parent` that killed runs have left; their process is in the name."""
    for folder in parent.glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):  # it has processes
                folder.rmdir()


def _create(name: str) -> Group:
    folders = []
    for parent in _parents():
        with contextlib.suppress(OSError):
            _sweep(parent)
            (parent / name).mkdir()
            folders.append(parent / name)
    return Group(tuple(folders))


def _parents() -> tuple[Path, ...]:
    """The groups below which ours can be: with version 2 the topmost, as a group that has processes
    of its own cannot limit those in it; with version 1 the one that this process is in."""
    with contextlib.suppress(OSError):
        enabled = (_TOP / "cgroup.subtree_control").read_text(encoding="ascii").split()
        if "memory" not in enabled or "pids" not in enabled:
            (_TOP / "cgroup.subtree_control").write_text("+memory +pids", encoding="ascii")
        return (_TOP,)
    if (_TOP / "cgroup.controllers").exists():
        return ()
    own: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path.strip("/"))
    return tuple(
        _TOP / name / own[name]
        for name in _CONTROLLERS
        if name in own and ".." not in own[name].split("/") and (_TOP / name / own[name]).is_dir()
    )


def _set_swap(folder: Path, memory: int) -> None:
    """Forbid swapping: with it, a build at its limit would be slow instead of ended."""
    with contextlib.suppress(OSError):  # where swap is not accounted
        if memory and (folder / "memory.swap.max").exists():
            (folder / "memory.swap.max").write_text("0", encoding="ascii")
        elif memory and (folder / "memory.memsw.limit_in_bytes").exists():
            (folder / "memory.memsw.limit_in_bytes").write_text(str(memory), encoding="ascii")


def _set(folder: Path, limit: int, *names: str) -> None:
    for name in names:
        if limit and (folder / name).exists():
            with contextlib.suppress(OSError):
                (folder / name).write_text(str(limit), encoding="ascii")
            return


def _delete(group: Group) -> None:
    end = time.monotonic() + _EMPTY_SECONDS
    for folder in group.folders:
        while folder.exists():
            try:
                folder.rmdir()
            except OSError:
                if time.monotonic() > end:
                    break  # the next run deletes it
                time.sleep(0.01)
