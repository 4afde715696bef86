"""Whether a generation still is what was published, and what is done where it is not.

A damaged package is taken out of its generation: a client that asks for it is told that it is
missing instead of getting bytes that do not fit. What is whole goes on being served; the next
publication makes a new generation, and signs again what was lost.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.portage import index
from tasks.portage.index import INDEX
from tasks.publish import published, release_manifest
from tasks.system.files import digests, put_away, write_atomic

Seen = Callable[[int], None]
_DAMAGED = "damaged"  # a key of the facts of a generation from which something was taken


def damaged(binhost: Path, number: int) -> bool:
    """Whether something was taken out of a generation."""
    try:
        return bool(published.facts(binhost, number).get(_DAMAGED))
    except (BinmillError, OSError):
        return False


def flaws(binhost: Path, number: int, seen: Seen) -> Iterator[tuple[Path, str]]:
    """What is wrong with a generation: the file that has it, and a line. `seen` is told bytes."""
    folder = binhost / "gen" / str(number)
    timestamp = _timestamp(binhost, number)
    if timestamp is None:
        yield folder / published.FACTS, f"{published.FACTS} cannot be read"
    known = published.packages(folder)
    if known is None:
        yield folder / published.LEDGER, f"{published.LEDGER} cannot be read"
    looked: set[int] = set()  # views share their packages' bytes
    for place in sorted(folder.rglob(INDEX)):
        name = place.relative_to(folder)
        text, packed = _text(place), _unpacked(place.with_name(f"{INDEX}.gz"))
        if packed is None:
            yield place.with_name(f"{INDEX}.gz"), f"{name}.gz is not what was written"
        if text is None or (packed is not None and packed != text):
            yield place, f"{name} is not what was written"
        header, stanzas = index.parse(packed or text or "")
        if timestamp is not None and header.get("TIMESTAMP") != str(timestamp):
            yield place, f"{name} is of another time"
        for stanza in stanzas:
            path = stanza.get("PATH", "")
            if not path or path.startswith("/") or ".." in path.split("/"):
                yield place, f"{name} names {path!r}"
            elif known is None or path in known or not damaged(binhost, number):
                entry = (known or {}).get(path, {})
                yield from _package(place.parent / path, stanza, entry, looked, seen)
    for place in sorted(folder.rglob(release_manifest.NAME)):
        yield from _listed(place, seen)
    yield from _lost(folder)


def _lost(folder: Path) -> Iterator[tuple[Path, str]]:
    """What each view has to have and has not."""
    for view in published.views(folder):
        if not (folder / view / INDEX).exists():
            yield folder / view / INDEX, f"{view}/{INDEX} is missing"
        manifest = folder / view / release_manifest.NAME
        if (
            not manifest.exists()
            and manifest.with_name(f"{INDEX}{release_manifest.SIGNATURE}").exists()
        ):
            yield manifest, f"{view}/{release_manifest.NAME} is missing"


def _listed(manifest: Path, seen: Seen) -> Iterator[tuple[Path, str]]:
    """What lies beside a release manifest and is not what it says."""
    view = manifest.parent.name
    try:
        files = json.loads(manifest.read_bytes())["files"]
        wanted = {
            manifest.with_name(Path(name).name): entry["sha512"] for name, entry in files.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        yield manifest, f"{view}/{manifest.name} cannot be read"
        return
    for path, digest in wanted.items():
        try:
            if digests(path, "sha512")["sha512"] != digest:
                yield path, f"{view}/{path.name} is not what {manifest.name} says"
            seen(path.stat().st_size)
        except OSError as error:
            yield path, f"{view}/{path.name}: {error.strerror}"
    for name in (INDEX, f"{INDEX}.gz", manifest.name):
        signature = manifest.with_name(name + release_manifest.SIGNATURE)
        if not signature.exists():
            yield signature, f"{view}/{signature.name} is missing"


def _package(
    path: Path, stanza: Mapping[str, str], entry: Mapping[str, Any], looked: set[int], seen: Seen
) -> Iterator[tuple[Path, str]]:
    try:
        status = path.stat()
        if str(status.st_size) != stanza.get("SIZE"):
            yield path, f"{path.name} has another size"
            return
        if status.st_ino in looked:
            return
        looked.add(status.st_ino)
        found = digests(path, "sha1", "sha512")
    except OSError as error:
        yield path, f"{path.name}: {error.strerror}"
        return
    seen(status.st_size)
    known = (stanza.get("SHA1"), entry.get("sha512", found["sha512"]))
    if (found["sha1"], found["sha512"]) != known:
        yield path, f"{path.name} has changed"


def withdraw(binhost: Path, number: int, spoilt: Sequence[Path], trash: Path) -> None:
    """Take damaged files out of a generation, so that the next publication replaces it.

    What can be written again from what is whole is written again: an index from its packed copy,
    the digests of what is held from the indexes, what it says of itself (but for who signed).
    """
    folder = binhost / "gen" / str(number)
    for path in spoilt:
        put_away(path, trash)
        if path.name == INDEX and (text := _unpacked(path.with_name(f"{INDEX}.gz"))):
            write_atomic(path, text)
            stamp = path.with_name(f"{INDEX}.gz").stat().st_mtime  # the index's own time (bintree)
            os.utime(path, (stamp, stamp))
    lost = {str(path.relative_to(folder)).partition("/")[2] for path in spoilt}
    # of what is not known any more, nothing is held: it will be signed again
    published.forget(folder, lost)
    try:
        facts = published.facts(binhost, number)
    except (BinmillError, OSError):
        indexes = {p.parent.name: index.parse(_text(p) or "") for p in folder.glob(f"*/{INDEX}")}
        stamps = [int(header.get("TIMESTAMP", "0")) for header, _ in indexes.values()]
        facts = {
            "set": "",
            "signer": "",
            "revisions": {},
            "packages": 0,
            "views": {view: len(stanzas) for view, (_, stanzas) in indexes.items()},
            "timestamp": max(stamps, default=0),
        }
    write_atomic(
        folder / published.FACTS,
        json.dumps({**facts, "asked": "", _DAMAGED: True}, indent=1, sort_keys=True) + "\n",
    )


def remember(binhost: Path) -> None:
    """Write anew which paths were published, by what the kept generations hold.

    Of what an index names beside that it is known only that it was: no build can have it again.
    """
    known: dict[str, str] = {}
    for number in published.numbers(binhost):
        folder = binhost / "gen" / str(number)
        for place in folder.rglob(INDEX):
            for stanza in index.parse(_text(place) or "")[1]:
                known.setdefault(stanza.get("PATH", ""), "unknown")
        known |= {p: str(e.get("collected")) for p, e in (published.packages(folder) or {}).items()}
    write_atomic(binhost / published.PUBLISHED, json.dumps(known, indent=0, sort_keys=True) + "\n")


def _timestamp(binhost: Path, number: int) -> int | None:
    try:
        facts = published.facts(binhost, number)
        return int(facts["timestamp"]) if isinstance(facts["revisions"], dict) else None
    except (BinmillError, OSError, LookupError, TypeError, ValueError):
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _unpacked(path: Path) -> str | None:
    try:
        return gzip.decompress(path.read_bytes()).decode()
    except (OSError, ValueError, EOFError, zlib.error):
        return None
