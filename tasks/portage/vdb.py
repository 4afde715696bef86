"""Portage's database of installed packages, /var/db/pkg (portage(5)).

A chroot may have put anything there, so no link is followed.
"""

from __future__ import annotations

from pathlib import Path

from tasks.errors import BinmillError, NotTrusted

DATABASE = "var/db/pkg"


def entries(upper: Path) -> list[Path]:
    """The directories CATEGORY/PF of the packages that a run installed into its upper layer."""
    database = upper
    for part in DATABASE.split("/"):  # a link could lead to the host's
        database /= part
        if database.is_symlink():
            raise NotTrusted("vdb-is-link", path=f"/{database.relative_to(upper)}")
    categories = [c for c in database.glob("*") if c.is_dir() and not c.is_symlink()]
    packages = sorted(
        entry
        for category in categories
        for entry in category.iterdir()
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("-MERGING-")
    )
    if not packages:
        raise BinmillError("nothing-installed")
    return packages


def value(entry: Path, key: str) -> str:
    """One file of an entry: BUILD_ID, SLOT and the like; raises NotTrusted if there is none."""
    path = entry / key
    if path.is_symlink() or not path.is_file():
        raise NotTrusted("vdb-lacks-key", package=f"{entry.parent.name}/{entry.name}", key=key)
    return path.read_text(encoding="utf-8", errors="replace").strip()
