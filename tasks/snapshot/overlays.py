"""Overlays: git repositories of ebuilds, pinned to a commit, fetched into bare repositories."""

from __future__ import annotations

from pathlib import Path

from tasks.config import Overlay
from tasks.errors import BinmillError
from tasks.lock import OverlayPin
from tasks.system.git import REMOTE_SECONDS, bare, explained


def head(repository: Path, overlay: Overlay) -> OverlayPin:
    """The commit that the overlay's branch is at now, on its remote."""
    with explained(f"{overlay.url} could not be read", "check [overlays] in config.toml"):
        listed = str(bare(repository).git.ls_remote(
            "--heads", "--", overlay.url, f"refs/heads/{overlay.branch}",
            kill_after_timeout=REMOTE_SECONDS))  # fmt: skip
    if not listed:
        raise BinmillError(f"{overlay.url} has no branch {overlay.branch}", "check [overlays]")
    return OverlayPin(url=overlay.url, branch=overlay.branch, commit=listed.split(maxsplit=1)[0])


def obtain(repository: Path, pin: OverlayPin) -> None:
    """Make sure that the pinned commit is here and stays; raises BinmillError if it is gone."""
    repo = bare(repository)
    if not has(repository, pin.commit):
        with explained(f"{pin.url} could not be fetched", "check [overlays] in config.toml"):
            repo.git.execute(
                ["git", "-c", "transfer.fsckObjects=true", "fetch", "--no-tags", "--force", "--",
                 pin.url, f"refs/heads/{pin.branch}:refs/remotes/origin/{pin.branch}"],
                kill_after_timeout=REMOTE_SECONDS,
            )  # fmt: skip
    if not has(repository, pin.commit):
        raise BinmillError(
            f"{pin.url} does not have the pinned commit {pin.commit[:12]} on {pin.branch} any more",
            "ask its owners for it, or run `doit lock` to take what the branch has now",
        )
    repo.git.update_ref(f"refs/pins/{pin.commit}", pin.commit)  # gc must not take it


def has(repository: Path, commit: str) -> bool:
    """Whether a commit is in a repository, whole."""
    from git.exc import GitCommandError

    try:
        bare(repository).git.cat_file("-e", f"{commit}^{{commit}}")
    except GitCommandError:
        return False
    return True
