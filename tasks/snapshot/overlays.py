"""Overlays: git repositories of ebuilds, pinned to a commit, fetched into bare repositories.

A commit is fetched by its id, so it is available for as long as its remote has it, even after the
branch was rewritten. `branch_update` reports such changes of the branch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.config.tables import Overlay
from tasks.errors import BinmillError
from tasks.lock import OverlayPin
from tasks.snapshot.repository import exclusive, has_commit
from tasks.system.git import bare, explained, remote_references, remotely
from tasks.system.notes import Note
from tasks.text import without_password

if TYPE_CHECKING:
    from git import Repo

_CHECKED_FETCH = ("-c", "transfer.fsckObjects=true", "fetch", "--no-tags", "--force", "--")


def branch_head(repository: Path, overlay: Overlay) -> OverlayPin:
    """Look up the commit that the overlay's branch is at now, on its remote."""
    url = without_password(overlay.url)
    tip = _tip(repository, overlay.url, overlay.branch)
    if tip is None:
        raise BinmillError("branch-missing", url=url, branch=overlay.branch)
    return OverlayPin(url=url, branch=overlay.branch, commit=tip)


def fetch_pinned(repository: Path, pin: OverlayPin) -> None:
    """Fetch the pinned commit if it is not here, and keep it; raises BinmillError if it is gone."""
    with exclusive(repository) as repo, explained("overlay-not-fetched", repository, url=pin.url):
        if not has_commit(repository, pin.commit):
            _fetch(repo, pin)
        if not has_commit(repository, pin.commit):
            raise BinmillError(
                "pinned-commit-gone",
                url=without_password(pin.url),
                commit=pin.commit,
                branch=pin.branch,
            )
        # a reference protects it from git gc
        repo.git.update_ref(f"refs/pins/{pin.commit}", pin.commit)


def branch_update(repository: Path, pin: OverlayPin) -> Note | None:
    """Describe how the overlay's branch differs from the pin; None where it is at the pin.

    The branch's commit is fetched for the comparison; the pin stays. Raises BinmillError where the
    remote cannot be read.
    """
    fields = {"overlay": repository.stem, "branch": pin.branch, "pinned": pin.commit}
    tip = _tip(repository, pin.url, pin.branch)
    if tip is None:
        return Note("overlay-branch-gone", fields)
    if tip == pin.commit:
        return None
    with exclusive(repository) as repo, explained("overlay-not-fetched", repository, url=pin.url):
        tip = _fetch_branch(repo, pin)
    code = "overlay-moved" if _descends(repository, tip, pin.commit) else "overlay-rewritten"
    return Note(code, {**fields, "head": tip})


def _descends(repository: Path, commit: str, ancestor: str) -> bool:
    """Return True if a fetched commit descends from another, which may be missing here."""
    if not has_commit(repository, ancestor):
        return False
    repo = bare(repository)
    with explained("history-unreadable", repository, name=repository.stem):
        return repo.is_ancestor(repo.commit(ancestor), repo.commit(commit))


def _tip(repository: Path, url: str, branch: str) -> str | None:
    """Look up the commit of a branch on the remote; None where there is no such branch."""
    reference = f"refs/heads/{branch}"
    with explained("overlay-unreachable", url=url):
        return remote_references(bare(repository), url, reference).get(reference)


def _fetch(repo: Repo, pin: OverlayPin) -> None:
    """Fetch a commit by its id, or the branch where the server does not allow that.

    By protocol version 2 it is always allowed, before it by uploadpack.allowReachableSHA1InWant
    and its like (git-config(1)).
    """
    from git.exc import GitCommandError

    try:
        remotely(repo, *_CHECKED_FETCH, pin.url, pin.commit)
    except GitCommandError as refusal:
        if refusal.status == "timeout":
            raise
        _fetch_branch(repo, pin)


def _fetch_branch(repo: Repo, pin: OverlayPin) -> str:
    """Fetch the branch as it is now, even where it was rewritten; returns its commit."""
    tracking = f"refs/remotes/origin/{pin.branch}"
    remotely(repo, *_CHECKED_FETCH, pin.url, f"refs/heads/{pin.branch}:{tracking}")
    return str(repo.git.rev_parse("--verify", tracking))
