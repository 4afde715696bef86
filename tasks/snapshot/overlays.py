"""Overlays: git repositories of ebuilds, pinned to a commit, fetched into bare repositories.

A commit is asked for by its id, so it can be had for as long as its remote has it, also when the
branch was rewritten since. What a person should know of that is what `moved` says.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.load import Overlay
from tasks.errors import BinmillError
from tasks.lock import OverlayPin
from tasks.snapshot.freeze import alone
from tasks.system.git import bare, explained, listed, remotely
from tasks.system.http import public

if TYPE_CHECKING:
    from git import Repo

_LOOK = "check [overlays] in config.toml"
_CHECKED = ("-c", "transfer.fsckObjects=true", "fetch", "--no-tags", "--force", "--")


def head(repository: Path, overlay: Overlay) -> OverlayPin:
    """The commit that the overlay's branch is at now, on its remote."""
    tip = _tip(repository, overlay.url, overlay.branch)
    if tip is None:
        raise BinmillError(f"{public(overlay.url)} has no branch {overlay.branch}", _LOOK)
    return OverlayPin(url=public(overlay.url), branch=overlay.branch, commit=tip)


def obtain(repository: Path, pin: OverlayPin) -> None:
    """Make sure that the pinned commit is here and stays; raises BinmillError if it is gone."""
    with alone(repository) as repo, explained(f"{pin.url} could not be fetched", _LOOK, repository):
        if not has(repository, pin.commit):
            _fetch(repo, pin)
        if not has(repository, pin.commit):
            raise BinmillError(
                f"{public(pin.url)} does not have the pinned commit {pin.commit[:12]} "
                f"on {pin.branch} any more",
                "ask its owners for it, or run `doit lock` to take what the branch has now",
            )
        repo.git.update_ref(f"refs/pins/{pin.commit}", pin.commit)  # gc must not take it


def has(repository: Path, commit: str) -> bool:
    """Whether a commit is in a repository; raises BinmillError where it is damaged there."""
    from git.exc import GitCommandError

    repo = bare(repository)
    hint = "run the same command again"
    with explained(f"commit {commit[:12]} could not be read", hint, repository):
        try:
            repo.git.cat_file("-e", f"{commit}^{{commit}}")
        except GitCommandError as error:
            if "Not a valid object name" in error.stderr:
                return False
            raise
    return True


def moved(repository: Path, pin: OverlayPin) -> str | None:
    """Where the overlay's branch is by now, in one sentence; None while it is at the pin.

    Raises BinmillError where the remote cannot be asked. Nothing is followed: what the branch has
    now is fetched to be compared, no more.
    """
    name, old = repository.stem, pin.commit[:7]
    tip = _tip(repository, pin.url, pin.branch)
    if tip is None:
        return f"{name}: branch {pin.branch} is gone (pinned: {old})"
    if tip == pin.commit:
        return None
    with alone(repository) as repo, explained(f"{pin.url} could not be fetched", _LOOK, repository):
        tip = _fetch_branch(repo, pin)
    if between(repository, pin.commit, tip) is None:
        return f"{name}: {pin.branch} was rewritten: {tip[:7]} does not go back to {old} (pinned)"
    return f"{name}: {pin.branch} has moved on to {tip[:7]} (pinned: {old})"


def between(repository: Path, old: str, new: str) -> int | None:
    """How many commits lead from `old` to `new`; None where no way leads there.

    It looks at what is here: for a new commit, `obtain` or `moved` come first.
    """
    if not (has(repository, old) and has(repository, new)):
        return None
    repo = bare(repository)
    with explained(f"the history of {repository.stem} could not be read", _LOOK, repository):
        if not repo.is_ancestor(repo.commit(old), repo.commit(new)):
            return None
        return int(str(repo.git.rev_list("--count", f"{old}..{new}")))


def _tip(repository: Path, url: str, branch: str) -> str | None:
    """The commit that a branch of the remote is at now; None where there is no such branch."""
    reference = f"refs/heads/{branch}"
    with explained(f"{url} could not be read", _LOOK):
        return listed(bare(repository), url, reference).get(reference)


def _fetch(repo: Repo, pin: OverlayPin) -> None:
    """Fetch a commit by its id, from the branch where the server does not allow that.

    By protocol version 2 it is always allowed, before it by uploadpack.allowReachableSHA1InWant
    and its like (git-config(1)).
    """
    from git.exc import GitCommandError

    try:
        remotely(repo, *_CHECKED, pin.url, pin.commit)
    except GitCommandError as refused:
        if refused.status == "timeout":
            raise
        _fetch_branch(repo, pin)


def _fetch_branch(repo: Repo, pin: OverlayPin) -> str:
    """Fetch the branch as it is now, also where it was rewritten; returns its commit."""
    followed = f"refs/remotes/origin/{pin.branch}"
    remotely(repo, *_CHECKED, pin.url, f"refs/heads/{pin.branch}:{followed}")
    return str(repo.git.rev_parse("--verify", followed))
