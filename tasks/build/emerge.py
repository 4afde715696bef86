"""The reference driver: `emerge --emptytree @world` in one chroot, as the guide has it.

Each package that is finished lies in PKGDIR at once. PKGDIR is kept per build key until the set
is complete, so a build that was stopped takes up its finished packages and goes on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.config import Build
from tasks.errors import BinmillError, CommandFailed
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox

def command(build: Build, packages: Sequence[str]) -> list[str]:
    """The emerge(1) call: everything again, taking what this very build has already packed.

    The packages are named beside @world, so that one that does not exist is an error.
    """
    return [
        "emerge", "--verbose", "--color=n", "--nospinner", "--quiet-build=y",
        "--emptytree", "--with-bdeps=y", "--usepkg=y", "--binpkg-respect-use=y",
        "--binpkg-changed-deps=y", f"--jobs={build.packages}", "@world", *sorted(packages),
    ]  # fmt: skip


def makeopts(build: Build) -> str:
    """MAKEOPTS for the machine; kept out of make.conf, so that this is the same everywhere."""
    return f"-j{build.jobs or os.cpu_count() or 1}"


def build(room: Sandbox, packages: Sequence[str], options: Build, log: Path) -> None:
    """Run the build; its packages are in the PKGDIR that `room` mounts, its database in the upper.

    Raises CommandFailed that names the first package that failed and where its log is.
    """
    room = replace(room, environment={**room.environment, "MAKEOPTS": makeopts(options)})
    start = log.stat().st_size if log.exists() else 0
    try:
        # a killed run may have left packages that its index does not know
        sandbox.run(room, ["emaint", "--fix", "binhost"], log=log, timeout=3600)
        sandbox.run(room, command(options, packages), log=log, timeout=options.timeout_minutes * 60)
    except CommandFailed as failed:
        with log.open("rb") as stream:
            stream.seek(start)
            said = stream.read().decode("utf-8", "replace")
        raise CommandFailed(
            f"the build of {room.hostname} failed: {reason(said) or failed.message}",
            f"read {log}; the packages that were finished are kept for the next run",
        ) from failed


def reason(log: str) -> str:
    """The line of emerge's output that tells a person what failed; "" if none does."""
    lines = [line.strip() for line in log.splitlines()]
    if log.rstrip().endswith(("Terminated", "Killed")):
        return "it was killed; was the machine out of memory?"
    for mark in (
        ">>> Failed to emerge", "emerge: there are no ebuilds", "The following REQUIRED_USE",
        "!!! All ebuilds that could satisfy", "!!! Multiple package instances",
        "ERROR:", "!!! ", "error:",
    ):  # fmt: skip
        for number, line in enumerate(lines):
            if mark in line:
                more = lines[number + 1] if line.endswith(":") and number + 1 < len(lines) else ""
                return f"{line.lstrip('>!* ')} {more}".strip()[:400]
    return ""


def installed(upper: Path) -> list[Path]:
    """The database entries (/var/db/pkg/CATEGORY/PF) that a build left in its upper layer."""
    database = upper / "var/db/pkg"
    entries = sorted(
        entry for entry in database.glob("*/*")
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("-MERGING-")
    )  # fmt: skip
    if not entries:
        raise BinmillError("the build installed nothing", "is [chroots] packages empty?")
    return entries
