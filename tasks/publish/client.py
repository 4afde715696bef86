"""A client: a fresh chroot from the same seed that installs a set from the published binhost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.build.emerge import WORLD, installed
from tasks.chroot.layers import place
from tasks.errors import BinmillError, CommandFailed
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox


def binrepos(name: str, url: str) -> str:
    """binrepos.conf of a client (portage(5))."""
    return f"\n[{name}]\npriority = 9999\nsync-uri = {url}\n"


def command() -> list[str]:
    """The emerge(1) call of a client: binary packages from the binhost, and nothing else."""
    return [
        "emerge", "--verbose", "--color=n", "--nospinner", "--getbinpkg", "--usepkgonly",
        "--with-bdeps=n", "@world",
    ]  # fmt: skip


def install(room: Sandbox, packages: Sequence[str], log: Path) -> list[str]:
    """Install `packages` inside; returns every CPV that was installed, sorted."""
    place(room.upper, room.layers, WORLD, "".join(f"{atom}\n" for atom in sorted(packages)))
    try:
        sandbox.run(room, command(), log=log, timeout=3600)
    except CommandFailed as failed:
        raise BinmillError(f"a client could not install from the binhost: {failed.message}",
                           f"read {log}") from failed  # fmt: skip
    return sorted(f"{entry.parent.name}/{entry.name}" for entry in installed(room.upper))
