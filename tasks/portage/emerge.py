"""The reference driver: `emerge --emptytree @world` in one chroot, as the guide has it.

Each package that is finished lies in PKGDIR at once. PKGDIR is kept per build key until the set
is complete, so a build that was stopped takes up its finished packages and goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.config.tables import Build
from tasks.errors import BinmillError, CommandFailed, NotTrusted, OutOfMemory
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What tells best comes first; how many lines belong together.
_TELLING = tuple(
    (re.compile(mark), length)
    for mark, length in (
        (r"^\* ERROR: \S+ failed \(", 2),
        (r"^!!! \S+ has fetch restriction turned on", 1),
        (r"^!!! Couldn't download", 1),
        (r"^!!! Error extracting", 1),
        (r"^>>> Failed to emerge", 2),
        (r"^emerge: there are no (ebuilds|binary packages)", 2),
        (r"^!!! The ebuild selected to satisfy", 4),
        (r"^!!! All ebuilds that could satisfy", 3),
        (r"^!!! Multiple package instances", 1),
        (r"ERROR:", 1),
        # these are said of a world file even when all is well
        (r"^!!! (?!Problems have been|Please run emaint|Ebuilds for the|masked or don't)", 1),
        (r"error:", 1),
    )
)


def command(build: Build, packages: Sequence[str]) -> list[str]:
    """The emerge(1) call: everything again, taking what this very build has already packed.

    The packages are named beside @world, so that one that does not exist is an error.
    """
    return [
        "emerge",
        "--verbose",
        "--color=n",
        "--nospinner",
        "--quiet-build=y",
        "--emptytree",
        "--with-bdeps=y",
        "--usepkg=y",
        "--binpkg-respect-use=y",
        "--binpkg-changed-deps=y",
        f"--jobs={build.packages}",
        "@world",
        *sorted(packages),
    ]


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
        said = said_since(log, start)
        first = f"read {log}"
        why = reason(said) or failed.message
        if isinstance(failed, OutOfMemory):
            why = f"out of memory, the kernel killed some of it; {why}"
            first = "have fewer `jobs` or `packages` in [build], or more memory"
        elif tried_the_network(said):
            why = f"{why} (it tried the network, which is denied to all but the fetching)"
        raise type(failed)(
            f"the build of {room.hostname} failed: {why}",
            f"{first}; the packages that were finished are kept for the next run",
        ) from failed


def fetch(room: Sandbox, packages: Sequence[str], options: Build, log: Path, hint: str) -> None:
    """Fetch what `build` would, and build nothing; raises CommandFailed, with `hint`."""
    start = log.stat().st_size if log.exists() else 0
    try:
        sandbox.run(
            room,
            [*command(options, packages), "--fetchonly"],
            log=log,
            timeout=options.timeout_minutes * 60,
        )
    except CommandFailed as failed:
        raise CommandFailed(
            f"{room.hostname} could not fetch what it needs: "
            f"{reason(said_since(log, start)) or failed.message}",
            f"{hint}; or read {log}",
        ) from failed


def said_since(log: Path, start: int) -> str:
    """What a log has from a byte on: earlier runs are in the same file."""
    with log.open("rb") as stream:
        stream.seek(start)
        return stream.read().decode("utf-8", "replace")


_EMERGING = re.compile(
    r"^>>> (?:Emerging|Installing) (?:binary )?\((\d+) of (\d+)\) ([^\s:]+)", re.MULTILINE
)
_FAILED = re.compile(r"^>>> Failed to emerge ([^\s,]+)", re.MULTILINE)
_TAIL = 256 << 10  # bytes of a log that are enough to tell where it is


def progress(log: Path) -> str:
    """The package that emerge(1) is at, by the end of its log: `3 of 10 dev-libs/a-1, 1 failed`."""
    text = _COLOUR.sub("", said_since(log, max(0, log.stat().st_size - _TAIL)))
    begun = list(_EMERGING.finditer(text))
    if not begun:
        return ""
    number, total, package = begun[-1].groups()
    failed = len(set(_FAILED.findall(text)))
    return f"{number} of {total} {package}" + (f", {failed} failed" if failed else "")


def reason(log: str) -> str:
    """The line of emerge's output that tells a person what failed; "" if none does."""
    said = (_COLOUR.sub("", line).strip() for line in log.split("\n"))
    lines = [line for line in said if line and not line.startswith(">>> Jobs:")]
    ended = bool(lines) and lines[-1].endswith(("Terminated", "Killed"))
    if ended or any("Killed signal terminated program" in line for line in lines):
        return "it was killed; was the machine out of memory?"
    for mark, length in _TELLING:
        for number, line in enumerate(lines):
            if mark.search(line):
                told = (part.lstrip(">!* ") for part in lines[number : number + length])
                return " ".join(told).removeprefix("ERROR: ")[:400]
    return ""


_NO_NETWORK = re.compile(
    "network is unreachable|could not resolve host|name or service not known"
    "|temporary failure in name resolution|unable to resolve host address",
    re.IGNORECASE,
)


def tried_the_network(log: str) -> bool:
    """Whether a package that failed wanted the network: what programs say that have none.

    emerge(1) prints the log of a package that failed, whatever --quiet-build says.
    """
    return "!!! Couldn't download" not in log and bool(_NO_NETWORK.search(log))


def installed(upper: Path) -> list[Path]:
    """The database entries (/var/db/pkg/CATEGORY/PF) that a build left in its upper layer."""
    database = upper
    for part in ("var", "db", "pkg"):  # a link would lead to the host's
        database /= part
        if database.is_symlink():
            raise NotTrusted(f"/{database.relative_to(upper)} is a link after the build")
    categories = [c for c in database.glob("*") if c.is_dir() and not c.is_symlink()]
    entries = sorted(
        entry
        for category in categories
        for entry in category.iterdir()
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("-MERGING-")
    )
    if not entries:
        raise BinmillError("the build installed nothing", "is [chroots] packages empty?")
    return entries
