"""Generations: immutable directories of packages and their index; `current` points to one.

The switch is one rename: a client sees the old generation or the new one, whole.
"""

from __future__ import annotations

import gzip
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.build.collect import INDEX
from tasks.errors import BinmillError
from tasks.publish import index
from tasks.system.files import remove_tree, sync_folder, write_atomic

FACTS = "generation.json"


def current(binhost: Path) -> int | None:
    """The number of the published generation, or None."""
    link = binhost / "current"
    if not link.is_symlink():
        return None
    return int(link.readlink().name)


def facts(binhost: Path, number: int) -> dict[str, Any]:
    """What a generation says of itself."""
    loaded: dict[str, Any] = json.loads((binhost / "gen" / str(number) / FACTS).read_text())
    return loaded


def publish(
    binhost: Path,
    made: Mapping[str, Any],
    folder: Path,
    *,
    revisions: Mapping[str, str],
    trash: Path,
) -> int:
    """Make the set `made` (a record of binpkgs) the current generation; returns its number.

    Its signed files are in `folder`, on the same file system.
    """
    now = current(binhost)
    number = max(_numbers(binhost), default=0) + 1
    scratch = binhost / "gen" / f".{number}.tmp"
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    _link(made["packages"], folder, scratch)
    timestamp = _next_timestamp(binhost, now)
    text = index.make((folder / INDEX).read_text(encoding="utf-8"), made["packages"], scratch,
                      timestamp=timestamp, revisions=revisions)  # fmt: skip
    _write_index(scratch, text, timestamp)
    write_atomic(scratch / FACTS, json.dumps(
        {"set": made["set"], "timestamp": timestamp, "packages": len(made["packages"]),
         "revisions": dict(revisions)}, indent=1, sort_keys=True) + "\n")  # fmt: skip
    for place, _, _ in os.walk(scratch):
        Path(place).chmod(0o755)
        sync_folder(Path(place))
    scratch.rename(binhost / "gen" / str(number))
    sync_folder(binhost / "gen")
    switch(binhost, number)
    return number


def switch(binhost: Path, number: int) -> None:
    """Point `current` at a generation, by one rename."""
    if not (binhost / "gen" / str(number)).is_dir():
        raise BinmillError(f"there is no generation {number} in {binhost}")
    link = binhost / f".current.{secrets.token_hex(4)}"
    link.symlink_to(f"gen/{number}")
    link.rename(binhost / "current")
    sync_folder(binhost)


def prune(binhost: Path, keep: int, trash: Path) -> list[int]:
    """Delete the oldest generations beyond `keep`, never the current one; returns their numbers."""
    now = current(binhost)
    gone = [n for n in sorted(_numbers(binhost))[:-keep] if n != now]
    for number in gone:
        remove_tree(binhost / "gen" / str(number), trash)
    return gone


def _numbers(binhost: Path) -> list[int]:
    folder = binhost / "gen"
    if not folder.is_dir():
        return []
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]


def _next_timestamp(binhost: Path, now: int | None) -> int:
    before = facts(binhost, now)["timestamp"] if now is not None else 0
    return max(int(time.time()), before + 1)


def _link(packages: Sequence[Mapping[str, Any]], folder: Path, target: Path) -> None:
    for package in packages:
        place = target / package["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(folder / package["path"])


def _write_index(folder: Path, text: str, timestamp: int) -> None:
    """Packages and Packages.gz, both with the header's TIMESTAMP as their mtime (bintree)."""
    raw = text.encode()
    for name, data in ((INDEX, raw), (f"{INDEX}.gz", gzip.compress(raw, mtime=timestamp))):
        write_atomic(folder / name, data)
        os.utime(folder / name, (timestamp, timestamp))
