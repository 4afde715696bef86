"""The tree repository and its remote: branch and tag go together, never by force."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot.freeze import Frozen, alone
from tasks.system.git import REMOTE_SECONDS, bare, explained

if TYPE_CHECKING:
    from git import Repo

_MAIN = "refs/heads/main"
_FOLLOWED = "refs/remotes/origin/main"


def push(repository: Path, remote: str, frozen: Frozen) -> bool:
    """Bring the branch and a day's tag to the remote; False when it already has that tag.

    Raises NotTrusted when the remote's tag of that name is another one, BinmillError when the
    remote refuses. What is frozen stays frozen either way; the next run tries again.
    """
    repo = bare(repository)
    reference = f"refs/tags/{frozen.tag}"
    hint = "it stays frozen here; mend the remote, then run `doit snapshot` again"
    with explained(f"{frozen.tag} could not be pushed to {remote}", hint):
        listed = _listed(repo, remote, reference, _MAIN)
        ours = repo.tags[frozen.tag].object.hexsha
        theirs = listed.get(reference)
        if theirs not in (None, ours):
            raise NotTrusted(
                f"{remote} has another {frozen.tag} ({theirs}, ours is {ours})",
                "find out who froze other bytes before you use either",
            )
        if theirs:
            return False
        if _MAIN in listed and listed[_MAIN] not in str(repo.git.rev_list(_MAIN)).split():
            raise BinmillError(
                f"{remote} has moved on: its main is at {listed[_MAIN][:12]}, which is not in ours",
                "nothing is forced; freeze from one place only, or give [tree] another remote",
            )
        repo.git.push("--atomic", "--", remote, f"{_MAIN}:{_MAIN}",
                      f"{reference}:{reference}", kill_after_timeout=REMOTE_SECONDS)  # fmt: skip
    return True


def follow(repository: Path, remote: str) -> None:
    """Take up the remote's branch where ours is behind it or not there yet; never moves it back.

    So a second machine, or one that lost its state, goes on where the others are.
    """
    with (
        alone(repository) as repo,
        explained(f"{remote} could not be read", "check [tree] remote in config.toml"),
    ):
        theirs = _listed(repo, remote, _MAIN).get(_MAIN)
        ours = next((b.commit.hexsha for b in repo.branches if b.name == "main"), None)
        if theirs is None or theirs == ours:
            return
        repo.git.fetch("--no-tags", "--", remote, f"+{_MAIN}:{_FOLLOWED}",
                       kill_after_timeout=REMOTE_SECONDS)  # fmt: skip
        if ours is None or repo.is_ancestor(repo.commit(ours), repo.commit(theirs)):
            repo.git.update_ref(_MAIN, theirs, ours or "0" * len(theirs))


def fetch(repository: Path, remote: str, tag: str) -> None:
    """Take one day from the remote, if it has it; never moves what is here."""
    with (
        alone(repository) as repo,
        explained(f"{remote} could not be read", "check [tree] remote in config.toml"),
    ):
        reference = f"refs/tags/{tag}"
        if _listed(repo, remote, reference):
            repo.git.fetch("--no-tags", "--", remote, f"{reference}:{reference}",
                           kill_after_timeout=REMOTE_SECONDS)  # fmt: skip


def _listed(repo: Repo, remote: str, *names: str) -> dict[str, str]:
    """Which of these references the remote has, and where they point."""
    lines = str(repo.git.ls_remote("--", remote, *names, kill_after_timeout=REMOTE_SECONDS))
    found = {name: target for target, name in (line.split("\t") for line in lines.splitlines())}
    return {name: found[name] for name in names if name in found}  # it lists a/NAME for NAME, too
