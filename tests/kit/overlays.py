"""Git repositories that overlays come from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tasks.lock import OverlayPin

IDENTITY = ["-c", "user.name=x", "-c", "user.email=x@test.example"]


def git(where: Path, *words: str, stdin: bytes = b"") -> str:
    result = subprocess.run(
        ["git", "-C", where, *IDENTITY, *words], input=stdin, check=True, capture_output=True
    )
    return result.stdout.decode().strip()


def commit(upstream: Path, files: dict[str, str]) -> str:
    """Put files into upstream's branch; returns the commit's id."""
    for name, text in files.items():
        (upstream / name).parent.mkdir(parents=True, exist_ok=True)
        (upstream / name).write_text(text)
    git(upstream, "add", "-A")
    git(upstream, "commit", "-q", "-m", "x")
    return git(upstream, "rev-parse", "HEAD")


def pin(upstream: Path, at: str, branch: str = "main") -> OverlayPin:
    return OverlayPin(url=str(upstream), branch=branch, commit=at)


def rewrite_branch(upstream: Path, files: dict[str, str]) -> str:
    """Give upstream's branch another history; returns where it is then."""
    git(upstream, "checkout", "-q", "--orphan", "new")
    git(upstream, "branch", "-q", "-D", "main")
    git(upstream, "branch", "-m", "main")
    return commit(upstream, files)
