"""The tree repository and its remote: branch and tags go together, never by force."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot.freeze import Frozen, alone
from tasks.system.git import bare, explained, listed, remotely
from tasks.system.http import public

if TYPE_CHECKING:
    from git import Repo

_MAIN = "refs/heads/main"
_TAGS = "refs/tags/"
_FOLLOWED = "refs/remotes/origin/main"
_DAY = re.compile(_TAGS + r"[0-9]{8}")
_LOOK = "check [tree] remote in config.toml"


def push(repository: Path, remote: str, frozen: Frozen) -> list[str]:
    """Bring the remote every day that it lacks, and the branch; returns the tags that went there.

    What earlier pushes failed to bring goes along with `frozen`, all of it or nothing. Raises
    NotTrusted when a tag of the remote's is another one than ours, BinmillError when the remote
    refuses or its branch went another way. What is frozen stays frozen; the next run tries again.
    """
    repo = bare(repository)
    hint = "it stays frozen here; mend the remote, then run `doit snapshot` again"
    with explained(f"{frozen.tag} could not be pushed to {remote}", hint, repository):
        theirs = listed(repo, remote, _MAIN, f"{_TAGS}*")
        ours = _held(repo)
        days = sorted(name for name in ours if _DAY.fullmatch(name))
        _agreed(remote, {day: (theirs[day], ours[day]) for day in days if day in theirs})
        wanted = [day for day in days if day not in theirs]
        if _MAIN in ours and ours[_MAIN] != theirs.get(_MAIN):
            if _MAIN not in theirs or theirs[_MAIN] in str(repo.git.rev_list(_MAIN)).split():
                wanted.append(_MAIN)
            elif wanted:  # else it has all that is ours, and somebody else's days
                raise BinmillError(
                    f"{public(remote)} has moved on: its main is at {theirs[_MAIN][:12]}, "
                    "which is not in ours",
                    "nothing is forced; freeze from one place only, or give [tree] another remote",
                )
        if wanted:
            remotely(repo, "push", "--atomic", "--", remote, *(f"{ours[x]}:{x}" for x in wanted))
    return [name.removeprefix(_TAGS) for name in wanted if name != _MAIN]


def _agreed(remote: str, tags: dict[str, tuple[str, str]]) -> None:
    """Refuse a remote that calls something else by the name of a day of ours."""
    for name, (theirs, ours) in tags.items():
        if theirs != ours:
            raise NotTrusted(
                f"{public(remote)} has another {name.removeprefix(_TAGS)} "
                f"({theirs}, ours is {ours})",
                "find out who froze other bytes before you use either",
            )


def follow(repository: Path, remote: str) -> None:
    """Take up the remote's branch where ours is behind it or not there yet; never moves it back.

    So a second machine, or one that lost its state, goes on where the others are.
    """
    with alone(repository) as repo, explained(f"{remote} could not be read", _LOOK, repository):
        theirs = listed(repo, remote, _MAIN).get(_MAIN)
        ours = _held(repo).get(_MAIN)
        if theirs is None or theirs == ours:
            return
        remotely(repo, "fetch", "--no-tags", "--", remote, f"+{_MAIN}:{_FOLLOWED}")
        if ours is None or repo.is_ancestor(repo.commit(ours), repo.commit(theirs)):
            repo.git.update_ref(_MAIN, theirs, ours or "0" * len(theirs))


def fetch(repository: Path, remote: str, tag: str) -> None:
    """Take one day from the remote, if it has it; never moves what is here."""
    with alone(repository) as repo, explained(f"{remote} could not be read", _LOOK, repository):
        reference = f"{_TAGS}{tag}"
        if listed(repo, remote, reference):
            remotely(repo, "fetch", "--no-tags", "--", remote, f"{reference}:{reference}")


def _held(repo: Repo) -> dict[str, str]:
    """Our references and where they point; no object is read for it."""
    lines = str(repo.git.for_each_ref("--format=%(objectname) %(refname)")).splitlines()
    return {name: target for target, name in (line.split(" ", 1) for line in lines)}
