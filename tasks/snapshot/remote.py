"""The remote of the tree repository: branch and tags are pushed together, never by force."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot.frozen_days import FrozenDay
from tasks.snapshot.repository import exclusive
from tasks.system.git import bare, explained, remote_references, remotely
from tasks.text import without_password

if TYPE_CHECKING:
    from git import Repo

_MAIN = "refs/heads/main"
_TAGS = "refs/tags/"
_TRACKING = "refs/remotes/origin/main"
_DAY = re.compile(_TAGS + r"[0-9]{8}")


def push(repository: Path, remote: str, frozen: FrozenDay) -> list[str]:
    """Push every day that the remote lacks, and the branch; returns the tags that were pushed.

    Days of earlier failed pushes are pushed together with `frozen`, all or none. Raises NotTrusted
    when a tag of the remote differs from ours, BinmillError when the remote refuses or its branch
    has diverged. The frozen days stay; the next run tries again.
    """
    repo = bare(repository)
    with explained("push-failed", repository, tag=frozen.tag, remote=remote):
        theirs = remote_references(repo, remote, _MAIN, f"{_TAGS}*")
        ours = _references(repo)
        days = sorted(name for name in ours if _DAY.fullmatch(name))
        for day in days:
            if theirs.get(day, ours[day]) != ours[day]:
                raise NotTrusted(
                    "remote-tag-differs",
                    remote=without_password(remote),
                    tag=day.removeprefix(_TAGS),
                    theirs=theirs[day],
                    ours=ours[day],
                )
        missing = [day for day in days if day not in theirs]
        if _MAIN in ours and ours[_MAIN] != theirs.get(_MAIN):
            if _MAIN not in theirs or theirs[_MAIN] in str(repo.git.rev_list(_MAIN)).split():
                missing.append(_MAIN)
            elif missing:  # else the remote has all our days, and others
                raise BinmillError(
                    "remote-diverged", remote=without_password(remote), commit=theirs[_MAIN]
                )
        if missing:
            remotely(repo, "push", "--atomic", "--", remote, *(f"{ours[x]}:{x}" for x in missing))
    return [name.removeprefix(_TAGS) for name in missing if name != _MAIN]


def fast_forward(repository: Path, remote: str) -> None:
    """Fast-forward our branch to the remote's, or create it; never moves it back.

    So a second machine, or one that lost its state, continues where the others are.
    """
    with exclusive(repository) as repo, explained("remote-unreadable", repository, remote=remote):
        theirs = remote_references(repo, remote, _MAIN).get(_MAIN)
        ours = _references(repo).get(_MAIN)
        if theirs is None or theirs == ours:
            return
        remotely(repo, "fetch", "--no-tags", "--", remote, f"+{_MAIN}:{_TRACKING}")
        if ours is None or repo.is_ancestor(repo.commit(ours), repo.commit(theirs)):
            repo.git.update_ref(_MAIN, theirs, ours or "0" * len(theirs))


def fetch_day(repository: Path, remote: str, tag: str) -> None:
    """Fetch one day from the remote, if it has it; never changes an existing tag."""
    with exclusive(repository) as repo, explained("remote-unreadable", repository, remote=remote):
        reference = f"{_TAGS}{tag}"
        if remote_references(repo, remote, reference):
            remotely(repo, "fetch", "--no-tags", "--", remote, f"{reference}:{reference}")


def _references(repo: Repo) -> dict[str, str]:
    """List our references and their targets; reads no object."""
    lines = str(repo.git.for_each_ref("--format=%(objectname) %(refname)")).splitlines()
    return {name: target for target, name in (line.split(" ", 1) for line in lines)}
