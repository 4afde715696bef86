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
from collections.abc import Callable, Container, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import BinmillError, CommandFailed
from tasks.messages import Field
from tasks.system.command import locate, run
from tasks.system.files import sync_folder, write_atomic
from tasks.system.proxy import variables
from tasks.text import printable, without_password

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

_OBJECT = re.compile(r"([0-9a-f]{40,64}) (\w+) [0-9]+")


def bare(path: Path) -> Repo:
    """Open a bare repository of ours; creates it where there is none."""
    repository = _repository_class()
    if not (path / "HEAD").exists():
        _init(path)
    owner = path.stat().st_uid
    if owner != os.geteuid():
        # git would refuse with "dubious ownership", deep inside some later command
        raise BinmillError("repository-of-another-user", path=path, uid=owner)
    if not (path / "info" / "attributes").exists():
        write_atomic(path / "info" / "attributes", _ATTRIBUTES)
    with explained("repository-not-opened", path, path=path):
        return repository(path)


@cache
def _repository_class() -> Callable[[Path], Repo]:
    """Import GitPython; returns its Repo without what it reads from the caller's environment."""
    locate("git")  # else the import would end in a traceback
    from git import Git, Repo
    from git.db import GitCmdObjectDB

    class CleanGit(Git):
        def execute(self, command: Sequence[Any], *words: Any, **options: Any) -> Any:
            # GitPython starts from the caller's environment; env(1) drops what could redirect git
            own = self.environment()
            unset = [f"--unset={name}" for name in os.environ if _redirects(name, own)]
            return super().execute(
                [*(("env", *unset) if unset else ()), *command], *words, **options
            )

    class Repository(Repo):
        GitCommandWrapperType = CleanGit

        def __init__(self, path: Path) -> None:
            super().__init__(path, expand_vars=False)
            self._common_dir = ""
            # GIT_DIR by name: GitPython expands variables in the directory where it starts git,
            # and where there is none, starts it in the caller's, maybe in another repository
            names = {"GIT_DIR": str(path), "GIT_COMMON_DIR": None, "GIT_OBJECT_DIRECTORY": None}
            self.git.update_environment(**names, **_hardened())
            self.odb = GitCmdObjectDB(str(path / "objects"), self.git)

    return Repository


def _init(path: Path) -> None:
    """Create a repository in one step: half of one would be taken for a damaged one for ever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    with beside as folder:
        scratch = Path(folder, "new")
        # not by GitPython: it would take a $ in the path for a variable
        words = ("--quiet", "--bare", "--initial-branch=main", "--", scratch)
        run("git", "init", *words, env=_environment())
        write_atomic(scratch / "info" / "attributes", _ATTRIBUTES)
        run("sync", "-f", scratch)
        try:
            scratch.replace(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise BinmillError(
                "repository-damaged", repository=path, cause=f"{path.name}/HEAD is missing"
            ) from error
    sync_folder(path.parent)


def remote_references(repo: Repo, remote: str, *patterns: str) -> dict[str, str]:
    """List the references of a remote that match a pattern (* is any text), with their targets."""
    output = remotely(repo, "ls-remote", "--refs", "--", remote, *patterns, seconds=LOOK_SECONDS)
    references = (line.partition("\t") for line in output.splitlines())
    # it lists a/NAME for NAME, too
    return {n: target for target, _, n in references if any(fnmatchcase(n, p) for p in patterns)}


def remotely(repo: Repo, *words: str, seconds: float | None = None) -> str:
    """Run a git command that talks to a remote; returns its output.

    Raises git's GitCommandError when it fails, with the status "timeout" when it does not end
    within `seconds` (REMOTE_SECONDS). GitPython's own time limit is a SIGKILL, which leaves git's
    temporary files and, in its older versions, what git had started: ssh, git-remote-https, hooks.
    These would also outlive a kill of this process for as long as the remote lets them wait.
    """
    from git.exc import GitCommandError

    limit = REMOTE_SECONDS if seconds is None else seconds
    # with gc.auto, git would go on tidying up in the background after its end
    argv = ["git", "--git-dir=.", "-c", "gc.auto=0", *words]
    folder = Path(repo.git_dir)
    try:
        done = run(*argv, cwd=folder, env=_environment(), timeout=limit, check=False, family=True)
    except CommandFailed as late:
        output = f"timeout: it did not end within {limit:g} s"
        raise GitCommandError(argv, "timeout", output) from late
    if done.returncode != 0:
        raise GitCommandError(argv, done.returncode, done.stderr, done.stdout)
    return done.stdout.strip()


def objects_at(
    repository: Path, commit: str, paths: Sequence[str]
) -> dict[str, tuple[str, str] | None]:
    """Look up the type (`blob`, `tree`) and object id of paths in a commit; None: no such path.

    Links within the commit are followed. All paths are looked up by one program. Raises
    BinmillError where a link leads nowhere, or out of the commit, and where git cannot read it.
    """
    from git.exc import GitCommandError

    if any("\n" in path for path in paths):
        raise ValueError("a path has a newline")
    bare(repository)
    names = [f"{commit}^{{commit}}", *(f"{commit}:{path}" for path in paths)]
    asked = "".join(f"{name}\n" for name in names)
    # like `remotely`: git finds the repository where it stands, whatever its path looks like
    words = ("--git-dir=.", "cat-file", "--batch-check", "--follow-symlinks")
    with explained("commit-unreadable", repository, commit=commit):
        done = run(
            "git", *words, cwd=repository, env=_environment(), input=asked.encode(), check=False
        )
        if done.returncode != 0:
            raise GitCommandError(["git", *words], done.returncode, done.stderr)
        own, *answers = done.stdout.split("\n")
        if not _OBJECT.fullmatch(own):
            raise GitCommandError(["git", *words], 0, f"fatal: missing commit {commit}")
    objects: dict[str, tuple[str, str] | None] = {}
    for path, answer in zip(paths, answers, strict=False):
        if answer.endswith(" missing"):
            objects[path] = None
        elif match := _OBJECT.fullmatch(answer):
            objects[path] = (match[2], match[1])
        else:  # "dangling SIZE", and the name on the next line, which a repository may choose
            raise BinmillError("commit-link-broken", commit=commit, path=path)
    return objects


@contextlib.contextmanager
def explained(code: str, repository: Path | None = None, **fields: Field) -> Iterator[None]:
    """Turn a failure of git inside the block into an error of this code.

    The field `cause` is the line in which git says why. Where the cause is damage in
    `repository`, the error is `repository-damaged`, which says how to recover. User and password
    are removed from URLs in all fields.
    """
    from git.exc import GitError, InvalidGitRepositoryError, ODBError

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
                    "repository-damaged", repository=repository, cause=without_password(damage)
                ) from error
        clean_fields = {
            name: without_password(value) if isinstance(value, str) else value
            for name, value in fields.items()
        }
        raise BinmillError(code, cause=without_password(_reason(output)), **clean_fields) from error


def damage(repository: Path) -> str:
    """Return the first finding of `git fsck` in a repository, "" if there is none; reads it all."""
    if not (repository / "HEAD").is_file():
        return f"{repository.name}/HEAD is missing"
    return _damage(repository)


def _in_gitpython(error: BaseException) -> bool:
    """Tell whether an exception came out of GitPython; otherwise it is a bug of ours."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(f.f_globals.get("__name__", "").split(".")[0] in ("git", "gitdb") for f in frames)


def _damage(repository: Path) -> str:
    """Return the first finding of `git fsck`, "" if there is none; reads every object."""
    words = ("--git-dir", repository, "fsck", "--no-dangling", "--no-progress")
    done = run("git", *words, env=_environment(), check=False)
    return _reason(done.stderr + done.stdout) if done.returncode != 0 else ""


def _reason(output: str) -> str:
    """Pick the one line that says why git failed; printable, since a remote may have written it."""
    lines = [
        line.strip()
        for line in output.splitlines()
        if line.strip() and not line.startswith(("hint:", "To ", "notice:"))
    ]
    words = ("rejected", "fatal:|error:|timeout", "")
    reasons = (line for word in words for line in lines if re.search(word, line))
    reason = next(reasons, "git gave no reason")
    if "hook declined" in reason:  # a hook says itself why
        reason = ": ".join([reason, *(x for x in lines if x.startswith("remote:"))][:2])
    return printable(reason, 300)


def _redirects(name: str, own: Container[str] = ()) -> bool:
    """Tell whether an environment variable of the caller, not one of `own`, may redirect git.

    Inside a git hook, GIT_DIR would send every command to the caller's own repository;
    GIT_CONFIG_COUNT brings configuration along.
    """
    harmless = name in own or name.startswith(("GIT_SSH", "GIT_PYTHON_"))
    return name.startswith("GIT_") and not harmless


def _environment() -> dict[str, str]:
    """The environment of git: the caller's, without redirections, with the configured proxy."""
    inherited = {name: value for name, value in variables().items() if not _redirects(name)}
    return {**inherited, **_hardened()}


def _hardened() -> dict[str, str]:
    """Variables against configuration of the caller or host, questions and odd transports."""
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
