"""Whether this machine has, and allows, what chroots are made of; said before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tasks.errors import BinmillError, HostLacks
from tasks.system import sandbox
from tasks.system.command import locate

PROGRAMS = ("git", "gpg", "gpgv", "nginx", "setpriv", "tar", "unshare", "xz", "zstd")


def check(place: Path, programs: Iterable[str] = PROGRAMS) -> None:
    """Raise HostLacks listing all that is missing and how to give it; `place`: where state/ is."""
    problems = [*_missing(programs), *_withheld(place)]
    if problems:
        raise HostLacks(
            "this machine lacks what chroots need; nothing was done\n" + "\n".join(problems),
            "give it that, then run the same command again; "
            "listing and explaining tasks works without (doit list, info, why)",
        )


def _missing(programs: Iterable[str]) -> list[str]:
    found = []
    for program in programs:
        try:
            locate(program)
        except HostLacks as error:
            found.append(f"  - {error.message}: {error.hint}")
    return found


def _withheld(place: Path) -> list[str]:
    """Try a real sandbox over nothing: the kernel's answer is the only true one.

    Where only overlayfs is withheld, that is said, and chroots are copies.
    """
    if os.geteuid() != 0:
        return ["  - root: run the same command as root (sudo make ...)"]
    scratch = place / ".preflight"
    try:
        with sandbox.workspace(scratch, "room", scratch / "trash") as space:
            (space / "nothing").mkdir()
            empty = sandbox.Sandbox("preflight", (space / "nothing",), space)
            sandbox.run(empty, ["true"], timeout=60, check=False)  # that it stood is enough
    except (BinmillError, OSError) as error:
        said = str(error).splitlines()[0]
        return [
            f"  - namespaces: {said}\n"
            "      a virtual machine or a real one has them; a container needs --privileged\n"
            "      (CAP_SYS_ADMIN, mount and pid namespaces)"
        ]
    finally:
        _tidy(scratch)
    return []


def _tidy(scratch: Path) -> None:
    for folder in (scratch / "trash", scratch):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
