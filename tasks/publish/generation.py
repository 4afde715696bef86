"""Generations: immutable directories of packages and their index; `current` points to one.

The switch is one rename: a client sees the old generation or the new one, whole.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.build.collect import INDEX
from tasks.errors import BinmillError
from tasks.publish import index
from tasks.system.files import remove_tree, sync_folder, write_atomic

FACTS = "generation.json"
_PUBLISHED = "published.json"


def current(binhost: Path) -> int | None:
    """The number of the published generation, or None."""
    link = binhost / "current"
    if not link.is_symlink() or not link.is_dir():  # none yet, or it was deleted by hand
        return None
    return int(link.readlink().name)


def facts(binhost: Path, number: int) -> dict[str, Any]:
    """What a generation says of itself."""
    loaded: dict[str, Any] = json.loads((binhost / "gen" / str(number) / FACTS).read_text())
    return loaded


def published(binhost: Path) -> dict[str, str]:
    """Every package path that was ever published here, with the SHA-512 of what was collected.

    A path never gets another package: a client that has an index from yesterday would get bytes
    that do not fit it.
    """
    try:
        loaded: dict[str, str] = json.loads((binhost / _PUBLISHED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return loaded


def held(binhost: Path, packages: Sequence[Mapping[str, Any]], signer: str) -> dict[str, Path]:
    """Packages that a kept generation has, signed by this key already: path and file."""
    known, found = published(binhost), dict[str, Path]()
    kept = [n for n in sorted(_numbers(binhost)) if facts(binhost, n).get("signer") == signer]
    for package in packages:
        path = package["path"]
        if known.get(path) == package["sha512"]:
            for number in kept:
                place = binhost / "gen" / str(number) / path
                if place.is_file():
                    found[path] = place
    return found


def publish(
    binhost: Path,
    made: Mapping[str, Any],
    folder: Path,
    *,
    signer: str,
    revisions: Mapping[str, str],
    trash: Path,
) -> int:
    """Make the set `made` (a record of binpkgs) the current generation; returns its number.

    Its signed files and its index are in `folder`, on the same file system; what a kept
    generation has from the same `signer` (a fingerprint) is taken from there.
    """
    known = published(binhost)
    for package in made["packages"]:
        if known.get(package["path"], package["sha512"]) != package["sha512"]:
            raise BinmillError(
                f"{package['path']} was published before with other content",
                f"delete the builds of {binhost.name} below state/inside/builds and build again",
            )
    number = max(_numbers(binhost), default=0) + 1
    scratch = binhost / "gen" / f".{number}.tmp"
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    _link(made["packages"], folder, held(binhost, made["packages"], signer), scratch)
    timestamp = _next_timestamp(binhost)
    written = (folder / INDEX).read_text(encoding="utf-8", errors="replace")
    text = index.make(written, made["packages"], scratch,
                      timestamp=timestamp, revisions=revisions)  # fmt: skip
    _write_index(scratch, text, timestamp)
    write_atomic(scratch / FACTS, json.dumps(
        {"set": made["set"], "timestamp": timestamp, "packages": len(made["packages"]),
         "signer": signer, "revisions": dict(revisions)}, indent=1, sort_keys=True) + "\n"
    )  # fmt: skip
    for place, _, _ in os.walk(scratch):
        Path(place).chmod(0o755)
        sync_folder(Path(place))
    known |= {package["path"]: package["sha512"] for package in made["packages"]}
    write_atomic(binhost / _PUBLISHED, json.dumps(known, indent=0, sort_keys=True) + "\n")
    scratch.rename(binhost / "gen" / str(number))
    sync_folder(binhost / "gen")
    switch(binhost, number)
    return number


def switch(binhost: Path, number: int) -> None:
    """Point `current` at a generation, by one rename; `previous` at the one before it.

    A client that has read the index before the switch still finds there what it names.
    """
    if not (binhost / "gen" / str(number)).is_dir():
        raise BinmillError(f"there is no generation {number} in {binhost}")
    before = current(binhost)
    if before is not None and before != number:
        _point(binhost, "previous", before)
    _point(binhost, "current", number)


def _point(binhost: Path, name: str, number: int) -> None:
    link = binhost / f".{name}.tmp"
    link.unlink(missing_ok=True)  # of a killed run
    link.symlink_to(f"gen/{number}")
    link.rename(binhost / name)
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


def _next_timestamp(binhost: Path) -> int:
    """Later than all kept generations, not only the current one: that may be an older one."""
    seen: list[int] = [facts(binhost, number)["timestamp"] for number in _numbers(binhost)]
    return max(int(time.time()), max(seen, default=0) + 1)


def _link(
    packages: Sequence[Mapping[str, Any]], folder: Path, before: Mapping[str, Path], target: Path
) -> None:
    for package in packages:
        path = package["path"]
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(before.get(path, folder / path))


def _write_index(folder: Path, text: str, timestamp: int) -> None:
    """Packages and Packages.gz, both with the header's TIMESTAMP as their mtime (bintree)."""
    raw = text.encode()
    for name, data in ((INDEX, raw), (f"{INDEX}.gz", gzip.compress(raw, mtime=timestamp))):
        write_atomic(folder / name, data)
        os.utime(folder / name, (timestamp, timestamp))
