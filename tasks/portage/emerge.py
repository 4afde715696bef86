"""emerge(1): its command line, its runs in a chroot, and what its output says.

The whole set is built by one `emerge --emptytree @world`. Each finished package is in PKGDIR at
once. PKGDIR is kept per build key until the set is complete, so a build that was stopped resumes
with the packages that it had finished.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.config.tables import Build
from tasks.errors import CommandFailed, OutOfMemory
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The most precise line comes first, with the number of lines that belong to it.
_FAILURES = tuple(
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
        # emerge prints these about a world file even when all is well
        (r"^!!! (?!Problems have been|Please run emaint|Ebuilds for the|masked or don't)", 1),
        (r"error:", 1),
    )
)


def command(build: Build, packages: Sequence[str]) -> list[str]:
    """The call of emerge(1): rebuild everything, except what this build has already packed.

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
    """MAKEOPTS for this machine; not in make.conf, which is the same on every machine.

    Builds side by side do not know of each other: together they stop at the load of the machine.
    """
    processors = os.cpu_count() or 1
    load = f" -l{processors}" if build.packages > 1 else ""
    return f"-j{build.jobs or processors}{load}"


def build(buildroot: Sandbox, packages: Sequence[str], options: Build, log: Path) -> None:
    """Build a set; the packages are in its PKGDIR afterwards, their database in its upper layer.

    Raises CommandFailed with the first failure and the log that has the rest.
    """
    variables = {**buildroot.environment, "MAKEOPTS": makeopts(options)}
    buildroot = replace(buildroot, environment=variables)
    start = log.stat().st_size if log.exists() else 0
    seconds = options.timeout_minutes * 60
    try:
        # a killed run may have left packages that its index does not list
        sandbox.run(buildroot, ["emaint", "--fix", "binhost"], log=log, timeout=3600)
        sandbox.run(buildroot, command(options, packages), log=log, timeout=seconds)
    except CommandFailed as error:
        output = output_since(log, start)
        fields: dict[str, str | Path] = {
            "chroot": buildroot.hostname,
            "reason": first_failure(output) or error.message,
            "log": log,
        }
        if isinstance(error, OutOfMemory):
            raise OutOfMemory("build-out-of-memory", **fields) from error
        if tried_the_network(output):
            raise CommandFailed("build-tried-network", **fields) from error
        raise CommandFailed("build-failed", **fields) from error


def fetch(
    buildroot: Sandbox, packages: Sequence[str], options: Build, log: Path, group: str
) -> None:
    """Fetch the distfiles of a build, and build nothing; raises CommandFailed.

    `group` is one for which an administrator could add a restricted file.
    """
    start = log.stat().st_size if log.exists() else 0
    arguments = [*command(options, packages), "--fetchonly"]
    try:
        sandbox.run(buildroot, arguments, log=log, timeout=options.timeout_minutes * 60)
    except CommandFailed as error:
        raise CommandFailed(
            "distfiles-not-fetched",
            chroot=buildroot.hostname,
            reason=first_failure(output_since(log, start)) or error.message,
            group=group,
            log=log,
        ) from error


_TIMEOUTS = ("program-timeout", "program-timeout-logged")
_TIMEOUT_STATUS = 124  # as of timeout(1)


def fetch_packages(buildroot: Sandbox, atoms: Sequence[str], log: Path, timeout: float) -> int:
    """Fetch the distfiles of packages without their dependencies; returns emerge's exit code.

    One that exceeds `timeout` (seconds) fails as any other: it is not the end of the run.
    """
    command = [
        *("emerge", "--ignore-default-opts", "--color=n", "--nospinner"),
        *("--fetchonly", "--nodeps", "--oneshot", "--usepkg=n", *atoms),
    ]
    try:
        return sandbox.run(buildroot, command, log=log, timeout=timeout, check=False).returncode
    except CommandFailed as error:
        if error.code not in _TIMEOUTS:
            raise
        return _TIMEOUT_STATUS


def output_since(log: Path, start: int) -> str:
    """The text of a log from a byte on: earlier runs are in the same file."""
    with log.open("rb") as stream:
        stream.seek(start)
        return stream.read().decode("utf-8", "replace")


_EMERGING = re.compile(
    r"^>>> (?:Emerging|Installing) (?:binary )?\((\d+) of (\d+)\) ([^\s:]+)", re.MULTILINE
)
_FAILED = re.compile(r"^>>> Failed to emerge ([^\s,]+)", re.MULTILINE)
_TAIL = 256 << 10  # bytes at the end of a log that contain the present package


def progress(log: Path) -> str:
    """Read how far emerge(1) is from its log: `3 of 10 dev-libs/a-1, 1 failed`."""
    text = _COLOUR.sub("", output_since(log, max(0, log.stat().st_size - _TAIL)))
    starts = list(_EMERGING.finditer(text))
    if not starts:
        return ""
    number, total, package = starts[-1].groups()
    failures = len(set(_FAILED.findall(text)))
    return f"{number} of {total} {package}" + (f", {failures} failed" if failures else "")


def first_failure(output: str) -> str:
    """The first line of emerge's output that explains a failure; "" if there is none."""
    plain = (_COLOUR.sub("", line).strip() for line in output.split("\n"))
    lines = [line for line in plain if line and not line.startswith(">>> Jobs:")]
    ended = bool(lines) and lines[-1].endswith(("Terminated", "Killed"))
    if ended or any("Killed signal terminated program" in line for line in lines):
        return "it was killed; was the machine out of memory?"
    for mark, length in _FAILURES:
        for number, line in enumerate(lines):
            if mark.search(line):
                parts = (part.lstrip(">!* ") for part in lines[number : number + length])
                return " ".join(parts).removeprefix("ERROR: ")[:400]
    return ""


_NO_NETWORK = re.compile(
    "network is unreachable|could not resolve host|name or service not known"
    "|temporary failure in name resolution|unable to resolve host address",
    re.IGNORECASE,
)


def tried_the_network(output: str) -> bool:
    """Tell whether a package failed because it wanted the network, by what programs print then.

    emerge(1) prints the log of a package that failed, whatever --quiet-build says.
    """
    return "!!! Couldn't download" not in output and bool(_NO_NETWORK.search(output))
