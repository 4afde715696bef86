"""The one way to use git: bare repositories of ours, through GitPython, with nothing inherited.

No work tree is ever made and git never runs inside files that came from elsewhere: a hostile
.git/config runs code, and in-tree attributes change what is stored. `info/attributes` of our
own repositories outranks every .gitattributes inside (gitattributes(5)).
"""

from __future__ import annotations

import configparser
import contextlib
import errno
import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import BinmillError, CommandFailed
from tasks.messages import Field
from tasks.system.command import locate, run
from tasks.system.files import sync_folder, write_atomic

if TYPE_CHECKING:
    from git import Repo

REMOTE_SECONDS = 600
LOOK_SECONDS = 60
_ATTRIBUTES = "* -export-subst -export-ignore -text -eol -ident -filter -working-tree-encoding\n"
# How git speaks of an object or reference that it cannot read: ours, or one of the remote's. What
# goes wrong on the way to a remote is not among it, since to look at every object takes long.
_UNREADABLE = re.compile(
    r"inflate|corrupt|file \S+ is empty|unable to (read|parse|unpack)|could not parse|broken link"
    r"|bad (tree |config |ref|object|pack)|not a (tree|commit|valid object|GIT packfile)|delta base"
    r"|(hash|sha1|sum) mismatch|invalid object|missing (blob|tree|commit|necessary)|packfile"
    r"|packed-refs|did not send all",
    re.IGNORECASE,
)


def bare(path: Path) -> Repo:
    """Open a bare repository of ours, making it where there is none."""
    _forget()
    # GitPython looks for git when it is imported, and would end in a traceback without one
    os.environ["GIT_PYTHON_GIT_EXECUTABLE"] = locate("git")
    from git import Repo

    if not (path / "HEAD").exists():
        _init(path)
    if path.stat().st_uid != os.geteuid():
        # git would refuse with "dubious ownership", deep inside some later command
        raise BinmillError(
            f"{path} belongs to another user (uid {path.stat().st_uid})",
            f"work on a site as one user; as root: chown -R root: {path}",
        )
    if not (path / "info" / "attributes").exists():
        write_atomic(path / "info" / "attributes", _ATTRIBUTES)
    with explained("repository-not-opened", path, path=path):
        repo = Repo(path, expand_vars=False)
    # by name: GitPython expands variables in the directory where it starts git, and where there is
    # none, starts it in the caller's, which may be in a repository of somebody else
    repo.git.update_environment(GIT_DIR=str(path), **_hardened())
    return repo


def _init(path: Path) -> None:
    """Make a repository in one step: half of one would be taken for a damaged one for ever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    with beside as folder:
        made = Path(folder, "made")
        with _environment():
            # not by GitPython: it would take a $ in the path for a variable
            run("git", "init", "--quiet", "--bare", "--initial-branch=main", "--", made)
        write_atomic(made / "info" / "attributes", _ATTRIBUTES)
        run("sync", "-f", made)
        try:
            made.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise BinmillError(
                f"{path} is damaged: it has no HEAD", "move it away, the next run makes another"
            ) from error
    sync_folder(path.parent)


def listed(repo: Repo, remote: str, *patterns: str) -> dict[str, str]:
    """Which references of these names, * standing for any, a remote has, and where they point."""
    printed = remotely(repo, "ls-remote", "--refs", "--", remote, *patterns, seconds=LOOK_SECONDS)
    found = (line.partition("\t") for line in printed.splitlines())
    # it lists a/NAME for NAME, too
    return {n: target for target, _, n in found if any(fnmatchcase(n, p) for p in patterns)}


def remotely(repo: Repo, *words: str, seconds: float | None = None) -> str:
    """Run a git command that talks to a remote; returns what it printed.

    Raises git's GitCommandError when it fails, with the status "timeout" when it does not end
    within `seconds` (REMOTE_SECONDS). GitPython's own time limit is a SIGKILL, which leaves git's
    temporary files and, in its older versions, what git had started: ssh, git-remote-https, hooks.
    These would also outlive a kill of this process for as long as the remote lets them wait.
    """
    from git.exc import GitCommandError

    limit = REMOTE_SECONDS if seconds is None else seconds
    # with gc.auto, git would go on tidying up in the background after its end
    argv = ["git", "--git-dir=.", "-c", "gc.auto=0", *words]
    try:
        with _environment():
            done = run(*argv, cwd=Path(repo.git_dir), timeout=limit, check=False, family=True)
    except CommandFailed as late:
        said = f"timeout: it did not end within {limit:g} s"
        raise GitCommandError(argv, "timeout", said) from late
    if done.returncode != 0:
        raise GitCommandError(argv, done.returncode, done.stderr, done.stdout)
    return done.stdout.strip()


@contextlib.contextmanager
def explained(code: str, repository: Path | None = None, **fields: Field) -> Iterator[None]:
    """Turn a failure of git inside the block into an error of this code.

    The field `cause` is the line in which git says why. Where the cause is damage in
    `repository`, the error is `repository-damaged`, which says how to recover. User and password
    are removed from URLs in all fields.
    """
    from git.exc import GitError, InvalidGitRepositoryError, ODBError

    from tasks.system.http import public

    # what GitPython, which reads references, tags and settings itself, makes of damage in them
    odd = (
        InvalidGitRepositoryError,
        ODBError,
        ValueError,
        LookupError,
        AssertionError,
        configparser.Error,
    )
    try:
        yield
    except (GitError, *odd) as error:
        if not isinstance(error, GitError) and not _in_gitpython(error):
            raise
        output = str(getattr(error, "stderr", "") or error).strip()
        output = output.removeprefix("stderr: '").removesuffix("'")  # GitPython's own wrapping
        if repository is not None and (isinstance(error, odd) or _UNREADABLE.search(output)):
            damage = _damage(repository)
            if damage:
                raise BinmillError(
                    "repository-damaged", repository=repository, cause=public(damage)
                ) from error
        shown = {
            name: public(value) if isinstance(value, str) else value
            for name, value in fields.items()
        }
        raise BinmillError(code, cause=public(_telling(output)), **shown) from error


def damage(repository: Path) -> str:
    """What `git fsck` finds first in a repository of ours, "" if all is well; reads it all."""
    if not (repository / "HEAD").is_file():
        return f"{repository.name}/HEAD is missing"
    return _damage(repository)


def _in_gitpython(error: BaseException) -> bool:
    """Whether an exception came out of GitPython; else it is a bug of ours."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(f.f_globals.get("__name__", "").split(".")[0] in ("git", "gitdb") for f in frames)


def _damage(repository: Path) -> str:
    """What `git fsck` finds first, nothing if all is well; reads every object, so it takes long."""
    with _environment():
        done = run(
            "git", "--git-dir", repository, "fsck", "--no-dangling", "--no-progress", check=False
        )
    return _telling(done.stderr + done.stdout) if done.returncode != 0 else ""


def _telling(said: str) -> str:
    """The one line of git's that says why, fit to be printed: a remote may have written it."""
    lines = [
        line.strip()
        for line in said.splitlines()
        if line.strip() and not line.startswith(("hint:", "To ", "notice:"))
    ]
    words = ("rejected", "fatal:|error:|timeout", "")
    telling = (line for word in words for line in lines if re.search(word, line))
    reason = next(telling, "git gave no reason")
    if "hook declined" in reason:  # a hook says itself why
        reason = ": ".join([reason, *(x for x in lines if x.startswith("remote:"))][:2])
    return "".join(c if c.isprintable() else "?" for c in reason)[:300]


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
        "GIT_ASKPASS": "",  # else SSH_ASKPASS opens a window and waits
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
        "GIT_TEMPLATE_DIR": "",  # no hooks from the host's templates
        # git-config(1): by default references are not synced, and a power loss leaves zeros in them
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsync",
        "GIT_CONFIG_VALUE_0": "all",
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
