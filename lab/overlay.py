"""The lab's overlay, as a bare git repository, and the empty one that the factory pushes to."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from lab import tree
from lab.upstream import OVERLAY, SOURCES, Upstream
from tasks.system.command import run
from tasks.system.files import remove_tree

BRANCH = "main"
_PERSON = "The lab"
_ADDRESS = "lab@lab.invalid"


def make(lab: Upstream, distfiles: dict[str, tree.Distfile], made: datetime) -> list[str]:
    """Make the overlay's repository with one commit, unless it is there; its packages."""
    scratch = lab.work / "overlay"
    remove_tree(scratch, lab.trash)
    packages = tree.render([SOURCES / "overlay" / OVERLAY], distfiles, scratch)
    if not lab.overlay.exists():
        tree.add_manifests(scratch, distfiles, thin=True)
        _git(scratch, made, "init", "--quiet", f"--initial-branch={BRANCH}")
        _git(scratch, made, "add", "--all")
        _git(scratch, made, "commit", "--quiet", "--message", "The overlay of the lab")
        bare = lab.work / f"{OVERLAY}.git"
        remove_tree(bare, lab.trash)
        _git(lab.work, made, "clone", "--quiet", "--bare", str(scratch), str(bare))
        lab.overlay.parent.mkdir(parents=True, exist_ok=True)
        bare.rename(lab.overlay)
    remove_tree(scratch, lab.trash)
    return packages


def make_remote(lab: Upstream, made: datetime) -> None:
    """Make the empty repository that takes the snapshots' commits, unless it is there."""
    if not lab.tree.exists():
        bare = lab.work / "tree.git"
        remove_tree(bare, lab.trash)
        _git(lab.work, made, "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(bare))
        bare.rename(lab.tree)


def _git(folder: Path, made: datetime, *arguments: str) -> None:
    """git with no configuration but what stands here, so the commit is the same everywhere."""
    stamp = f"{made.timestamp():.0f} +0000"
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_NAME": _PERSON for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": _ADDRESS for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_DATE": stamp for who in ("AUTHOR", "COMMITTER")},
    }
    run("git", *arguments, cwd=folder, env=environment)
