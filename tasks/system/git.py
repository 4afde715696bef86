"""The one way to use git: bare repositories of ours, through GitPython, with nothing inherited.

No work tree is ever made and git never runs inside files that came from elsewhere: a hostile
.git/config runs code, and in-tree attributes change what is stored. `info/attributes` of our
own repositories outranks every .gitattributes inside (gitattributes(5)).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import BinmillError
from tasks.system.command import locate
from tasks.system.files import write_atomic

if TYPE_CHECKING:
    from git import Repo

REMOTE_SECONDS = 600
_ATTRIBUTES = "* -export-subst -export-ignore -text -eol -ident -filter -working-tree-encoding\n"


def bare(path: Path) -> Repo:
    """Open a bare repository of ours, making it where there is none."""
    _forget()
    # GitPython looks for git when it is imported, and would end in a traceback without one
    os.environ["GIT_PYTHON_GIT_EXECUTABLE"] = locate("git")
    from git import Repo

    if not (path / "HEAD").exists():
        path.mkdir(parents=True, exist_ok=True)
        with _environment():
            Repo.init(path, bare=True, initial_branch="main")
    if path.stat().st_uid != os.geteuid():
        # git would refuse with "dubious ownership", deep inside some later command
        raise BinmillError(
            f"{path} belongs to another user (uid {path.stat().st_uid})",
            f"work on a site as one user; as root: chown -R root: {path}",
        )
    if not (path / "info" / "attributes").exists():
        write_atomic(path / "info" / "attributes", _ATTRIBUTES)
    repo = Repo(path)
    repo.git.update_environment(**_hardened())
    return repo


@contextlib.contextmanager
def explained(what: str, hint: str) -> Iterator[None]:
    """Turn a failure of git inside the block into one line: `what`, and git's own last words."""
    from git.exc import GitError

    try:
        yield
    except GitError as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        said = said.removeprefix("stderr: '").removesuffix("'")  # GitPython's own wrapping
        lines = [
            line.strip() for line in said.splitlines()
            if line.strip() and not line.startswith(("hint:", "To "))
        ]  # fmt: skip
        telling = [x for x in lines if "rejected" in x or "fatal:" in x or "error:" in x or
                   "timeout" in x.lower()]  # fmt: skip
        reason = (telling or lines or ["git gave no reason"])[0]
        raise BinmillError(f"{what}: {reason}", hint) from error


def _forget() -> None:
    """Drop the caller's GIT_* variables: inside a git hook, GIT_DIR would send every command to
    the caller's own repository, and GIT_CONFIG_COUNT brings configuration along."""
    for name in list(os.environ):
        if name.startswith("GIT_") and not name.startswith(("GIT_SSH", "GIT_PYTHON_")):
            del os.environ[name]


def _hardened() -> dict[str, str]:
    """No configuration of the caller's or the host's, no questions, no odd transports."""
    return {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
        "GIT_TEMPLATE_DIR": "",  # no hooks from the host's templates
        "LC_ALL": "C",
    }


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _hardened()}
    os.environ.update(_hardened())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
