"""What is in folders."""

from __future__ import annotations

from pathlib import Path


def names(folder: Path) -> list[str]:
    """What is in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())
