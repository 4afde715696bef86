"""Portage's database of installed packages, /var/db/pkg (portage(5)).

A chroot may have put anything there, so no link is followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import BinmillError, NotTrusted

DATABASE = "var/db/pkg"
# A line of CONTENTS (portage.dbapi.vartree, contents_re); a path may have blanks in it. Of a link,
# the path ends at the first arrow: with two open ends, one long line would take hours to match.
_CONTENT = re.compile(
    rb"(?:(?:dir|dev|fif) (?P<plain>/.*)|obj (?P<obj>/.*) [0-9a-f]{32} -?\d+"
    rb"|sym (?P<sym>/.*) -?\d+)"
)
_ARROW = b" -> "
_CONTENTS_LIMIT = 256 << 20  # bytes
_VALUE_LIMIT = 1 << 20  # bytes; a sparse file would fill the memory


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
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _VALUE_LIMIT:
        raise NotTrusted("vdb-lacks-key", package=f"{entry.parent.name}/{entry.name}", key=key)
    return path.read_text(encoding="utf-8", errors="replace").strip()


def contents(entry: Path) -> Iterator[str]:
    """Yield the path of everything that a package owns, as CONTENTS has it: /usr/bin/x.

    Raises NotTrusted for a line that is none. A package without files has no CONTENTS.
    """
    path, package = entry / "CONTENTS", f"{entry.parent.name}/{entry.name}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NotTrusted("vdb-contents-malformed", package=package) from error
    with os.fdopen(descriptor, "rb") as stream:
        if os.fstat(descriptor).st_size > _CONTENTS_LIMIT:
            raise NotTrusted("vdb-contents-malformed", package=package)
        for line in stream:
            match = _CONTENT.fullmatch(line.rstrip(b"\n"))
            name = _name(match) if match else b""
            if not name:
                raise NotTrusted("vdb-contents-malformed", package=package)
            yield os.fsdecode(name)


def _name(match: re.Match[bytes]) -> bytes:
    """The path in a line of CONTENTS; b"" for a link without a target."""
    path, arrow, target = (match["sym"] or b"").partition(_ARROW)
    link = path if arrow and target else b""
    return match["plain"] or match["obj"] or link
