"""The tree repository and its remote: branch and tag go together, never by force."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import NotTrusted
from tasks.snapshot.freeze import Frozen
from tasks.system.git import REMOTE_SECONDS, bare, explained


def push(repository: Path, remote: str, frozen: Frozen) -> bool:
    """Bring the branch and a day's tag to the remote; False when it already has that tag.

    Raises NotTrusted when the remote's tag of that name is another one, BinmillError when the
    remote refuses. What is frozen stays frozen either way; the next run tries again.
    """
    repo = bare(repository)
    reference = f"refs/tags/{frozen.tag}"
    hint = "it stays frozen here; mend the remote, then run `doit snapshot` again"
    with explained(f"{frozen.tag} could not be pushed to {remote}", hint):
        listed = str(repo.git.ls_remote("--tags", "--", remote, reference,
                                        kill_after_timeout=REMOTE_SECONDS))  # fmt: skip
        ours = repo.tags[frozen.tag].object.hexsha
        if listed:
            theirs = listed.split()[0]
            if theirs != ours:
                raise NotTrusted(
                    f"{remote} has another {frozen.tag} ({theirs[:12]}, ours is {ours[:12]})",
                    "find out who froze other bytes before you use either",
                )
            return False
        repo.git.push("--atomic", "--", remote, "refs/heads/main:refs/heads/main",
                      f"{reference}:{reference}", kill_after_timeout=REMOTE_SECONDS)  # fmt: skip
    return True


def fetch(repository: Path, remote: str) -> None:
    """Take the days that the remote has and this repository lacks; never moves what is here."""
    repo = bare(repository)
    with explained(f"{remote} could not be read", "check [tree] remote in config.toml"):
        repo.git.fetch("--no-tags", "--", remote, "refs/tags/*:refs/tags/*",
                       kill_after_timeout=REMOTE_SECONDS)  # fmt: skip
        if not repo.branches:
            repo.git.fetch("--no-tags", "--", remote, "refs/heads/main:refs/heads/main",
                           kill_after_timeout=REMOTE_SECONDS)  # fmt: skip
