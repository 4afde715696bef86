"""Check, before any work, that this machine has and allows what chroots need."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tasks import messages
from tasks.errors import BinmillError, HostLacks
from tasks.system import sandbox
from tasks.system.command import locate

PROGRAMS = ("git", "gpg", "gpgv", "nginx", "setpriv", "tar", "unshare", "xz", "zstd")


def check(place: Path, programs: Iterable[str] = PROGRAMS) -> None:
    """Raise HostLacks, which lists everything that is missing; `place` is the folder of state/."""
    problems = [*_missing(programs), *_not_allowed(place)]
    if problems:
        raise HostLacks("host-not-suitable", problems=problems)


def _missing(programs: Iterable[str]) -> list[str]:
    problems = []
    for program in programs:
        try:
            locate(program)
        except HostLacks as error:
            problems.append(f"{error.message}: {error.hint}")
    return problems


def _not_allowed(place: Path) -> list[str]:
    """Try a real sandbox over nothing: only the kernel knows what it allows.

    Where it refuses only overlayfs, a note says so, and chroots are copies.
    """
    if os.geteuid() != 0:
        return [messages.sentence("host-without-root", {})]
    scratch = place / ".preflight"
    try:
        with sandbox.workspace(scratch, "sandbox", scratch / "trash") as space:
            (space / "nothing").mkdir()
            empty = sandbox.Sandbox("preflight", (space / "nothing",), space)
            sandbox.run(empty, ["true"], timeout=60, check=False)  # that it starts is enough
    except (BinmillError, OSError) as error:
        cause = str(error).splitlines()[0]
        return [messages.sentence("host-without-namespaces", {"cause": cause})]
    finally:
        _tidy(scratch)
    return []


def _tidy(scratch: Path) -> None:
    for folder in (scratch / "trash", scratch):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
