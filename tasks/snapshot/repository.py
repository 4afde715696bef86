"""Exclusive use of a git repository of the site: locking, cleaning, packing, looking up commits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.system.files import locked
from tasks.system.git import bare, explained

if TYPE_CHECKING:
    from git import Repo

# of killed git processes: its locks are files, and outlive it; no reference's name can end so
_LEFTOVERS = (
    "objects/pack/tmp_*",
    "objects/pack/.tmp-*",
    "fast_import_*",
    "*.lock",
    "refs/**/*.lock",
)


@contextlib.contextmanager
def exclusive(repository: Path) -> Iterator[Repo]:
    """Lock a repository and delete what killed imports left in it; raises Busy."""
    repo = bare(repository)
    with locked(repository / "binmill.busy", f"the repository {repository.name}"):
        _delete_leftovers(repository)
        try:
            yield repo
        finally:
            _delete_leftovers(repository)


def _delete_leftovers(repository: Path) -> None:
    for pattern in _LEFTOVERS:
        for leftover in repository.glob(pattern):
            leftover.unlink(missing_ok=True)


def repack(repository: Path) -> None:
    """Combine small packs, so that a year of days stays a few packs (git-repack(1)).

    Only packs that are small beside the next larger one are rewritten, which takes a fraction of a
    second after a day. What fast-import packed in the archive's order, versions side by side, is
    as small as after a full repack.
    """
    with (
        exclusive(repository) as repo,
        explained("repository-not-packed", repository, name=repository.name),
    ):
        repo.git.repack("--geometric=2", "-d", "-q")


def has_commit(repository: Path, commit: str) -> bool:
    """Return True if a repository has a commit; raises BinmillError where it is damaged there."""
    from git.exc import GitCommandError

    repo = bare(repository)
    with explained("commit-unreadable", repository, commit=commit):
        try:
            repo.git.cat_file("-e", f"{commit}^{{commit}}")
        except GitCommandError as error:
            if "Not a valid object name" in error.stderr:
                return False
            raise
    return True
