"""The lab's overlay, a bare git repository, and the empty one to which a site pushes its tree."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from lab import tree
from lab.upstream import OVERLAY, SOURCES, Upstream
from tasks.system.command import run
from tasks.system.files import remove_tree

BRANCH = "main"
_NAME = "The lab"
_EMAIL = "lab@lab.invalid"


def make_overlay(
    lab: Upstream, distfiles: dict[str, tree.Distfile], created: datetime
) -> list[str]:
    """Create the overlay's repository with one commit, unless it exists; return its packages."""
    scratch = lab.work / "overlay"
    remove_tree(scratch, lab.trash)
    packages = tree.render([SOURCES / "overlay" / OVERLAY], distfiles, scratch)
    if not lab.overlay.exists():
        tree.add_manifests(scratch, distfiles, thin=True)
        _git(scratch, created, "init", "--quiet", f"--initial-branch={BRANCH}")
        _git(scratch, created, "add", "--all")
        _git(scratch, created, "commit", "--quiet", "--message", "The overlay of the lab")
        bare = lab.work / f"{OVERLAY}.git"
        remove_tree(bare, lab.trash)
        _git(lab.work, created, "clone", "--quiet", "--bare", str(scratch), str(bare))
        lab.overlay.parent.mkdir(parents=True, exist_ok=True)
        bare.rename(lab.overlay)
    remove_tree(scratch, lab.trash)
    return packages


def make_remote(lab: Upstream, created: datetime) -> None:
    """Create the empty repository to which a site pushes its tree, unless it exists."""
    if not lab.tree.exists():
        bare = lab.work / "tree.git"
        remove_tree(bare, lab.trash)
        _git(
            lab.work, created, "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(bare)
        )
        bare.rename(lab.tree)


def _git(folder: Path, created: datetime, *arguments: str) -> None:
    """Run git with this configuration only, so that the commit is the same everywhere."""
    date = f"{created.timestamp():.0f} +0000"
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_NAME": _NAME for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": _EMAIL for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_DATE": date for who in ("AUTHOR", "COMMITTER")},
    }
    run("git", *arguments, cwd=folder, env=environment)
