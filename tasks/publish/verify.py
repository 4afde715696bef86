"""Verifying published generations, and withdrawing damaged files from them.

A damaged package is removed from its generation: clients get a 404 instead of bytes that do not
match the index. Intact files are still served; the next publication makes a new generation and
signs lost packages again.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tasks.errors import BinmillError
from tasks.portage import index
from tasks.portage.index import INDEX
from tasks.publish import generation, published, release_manifest
from tasks.publish.generation import FACTS, Generation, Issue, Source
from tasks.publish.published import LEDGER, SignedPackage
from tasks.system.files import digests, move_to_trash, write_atomic

OnRead = Callable[[int], None]  # gets the number of bytes that were read


class Flaw(NamedTuple):
    """A damaged or missing file of a generation, and a sentence about it."""

    path: Path
    text: str


def damaged(binhost: Path, number: int) -> bool:
    """True for a generation from which files were withdrawn."""
    facts = _facts(binhost / "gen" / str(number))
    return facts is not None and facts.issue.damaged


def flaws(binhost: Path, number: int, on_read: OnRead) -> Iterator[Flaw]:
    """Read everything in a generation, and yield what is wrong with it."""
    folder = binhost / "gen" / str(number)
    facts, ledger = _facts(folder), _ledger(folder)
    if facts is None:
        yield Flaw(folder / FACTS, f"{FACTS} cannot be read")
    if ledger is None:
        yield Flaw(folder / LEDGER, f"{LEDGER} cannot be read")
    inodes: set[int] = set()  # views share the bytes of their packages
    for place in sorted(folder.rglob(INDEX)):
        name, text, unpacked = place.relative_to(folder), _text(place), _unpacked(_packed(place))
        yield from _index_flaws(place, str(name), text, unpacked)
        header, stanzas = index.parse(unpacked or text or "")
        if facts and header.get("TIMESTAMP") != str(facts.issue.timestamp):
            yield Flaw(place, f"{name} has the timestamp of another generation")
        for stanza in stanzas:
            path = stanza.get("PATH", "")
            if not path or path.startswith("/") or ".." in path.split("/"):
                yield Flaw(place, f"{name} contains the path {path!r}")
            elif ledger is None or path in ledger or not (facts and facts.issue.damaged):
                package = (ledger or {}).get(path)
                yield from _package_flaws(place.parent / path, stanza, package, inodes, on_read)
    for place in sorted(folder.rglob(release_manifest.NAME)):
        yield from _manifest_flaws(place, on_read)
    for view in sorted(facts.issue.views) if facts else ():
        yield from _missing_files(folder / view)


def _index_flaws(place: Path, name: str, text: str | None, unpacked: str | None) -> Iterator[Flaw]:
    """Compare the text of an index with that of its packed copy; None is unreadable."""
    if unpacked is None:
        yield Flaw(_packed(place), f"{name}.gz has changed")
    if text is None or (unpacked is not None and unpacked != text):
        yield Flaw(place, f"{name} has changed")


def _missing_files(view: Path) -> Iterator[Flaw]:
    """Look for the index and release manifest of a view."""
    if not (view / INDEX).exists():
        yield Flaw(view / INDEX, f"{view.name}/{INDEX} is missing")
    manifest = view / release_manifest.NAME
    signed = (view / f"{INDEX}{release_manifest.SIGNATURE}").exists()
    if signed and not manifest.exists():
        yield Flaw(manifest, f"{view.name}/{manifest.name} is missing")


def _manifest_flaws(manifest: Path, on_read: OnRead) -> Iterator[Flaw]:
    """Compare the files beside a release manifest with the digests in it."""
    view = manifest.parent.name
    try:
        files = json.loads(manifest.read_bytes())["files"]
        expected = {
            manifest.with_name(Path(name).name): entry["sha512"] for name, entry in files.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        yield Flaw(manifest, f"{view}/{manifest.name} cannot be read")
        return
    for path, digest in expected.items():
        try:
            if digests(path, "sha512")["sha512"] != digest:
                yield Flaw(path, f"{view}/{path.name} does not match {manifest.name}")
            on_read(path.stat().st_size)
        except OSError as error:
            yield Flaw(path, f"{view}/{path.name}: {error.strerror}")
    for name in (INDEX, f"{INDEX}.gz", manifest.name):
        signature = manifest.with_name(name + release_manifest.SIGNATURE)
        if not signature.exists():
            yield Flaw(signature, f"{view}/{signature.name} is missing")


def _package_flaws(
    path: Path,
    stanza: Mapping[str, str],
    package: SignedPackage | None,
    inodes: set[int],
    on_read: OnRead,
) -> Iterator[Flaw]:
    """Compare a package with its stanza in an index and its ledger entry, once per inode."""
    try:
        status = path.stat()
        if str(status.st_size) != stanza.get("SIZE"):
            yield Flaw(path, f"{path.name} has another size")
            return
        if status.st_ino in inodes:
            return
        inodes.add(status.st_ino)
        sums = digests(path, "sha1", "sha512")
    except OSError as error:
        yield Flaw(path, f"{path.name}: {error.strerror}")
        return
    on_read(status.st_size)
    sha512 = package.sums.sha512 if package else sums["sha512"]
    if (sums["sha1"], sums["sha512"]) != (stanza.get("SHA1"), sha512):
        yield Flaw(path, f"{path.name} has changed")


def withdraw(binhost: Path, number: int, damaged_files: Sequence[Path], trash: Path) -> None:
    """Remove damaged files from a generation, so that the next publication replaces it.

    Whatever intact files contain is restored: an index from its packed copy, and generation.json
    from the indexes (but for the signer).
    """
    folder = binhost / "gen" / str(number)
    for path in damaged_files:
        move_to_trash(path, trash)
        if path.name == INDEX and (text := _unpacked(_packed(path))):
            write_atomic(path, text)
            mtime = _packed(path).stat().st_mtime  # the TIMESTAMP (bintree)
            os.utime(path, (mtime, mtime))
    # without an entry in the ledger, the next run signs the package again
    paths = {str(path.relative_to(folder)).partition("/")[2] for path in damaged_files}
    _forget(folder, paths)
    facts = _facts(folder) or _reconstruct(folder)
    source, issue = replace(facts.source, inputs=""), replace(facts.issue, damaged=True)
    generation.write(folder, source, issue)


def _forget(folder: Path, paths: Collection[str]) -> None:
    """Remove packages from the ledger of a generation; an unreadable ledger becomes empty."""
    packages = _ledger(folder)
    if packages is not None and not (folder / LEDGER).exists():
        return  # of a version without ledgers
    left = {path: each for path, each in (packages or {}).items() if path not in paths}
    views = {path: each.location.relative_to(folder).parts[0] for path, each in left.items()}
    published.write_ledger(folder, left, views)


def _reconstruct(folder: Path) -> Generation:
    """The facts of a generation, as far as its indexes show them."""
    indexes = {
        path.parent.name: index.parse(_text(path) or "") for path in folder.glob(f"*/{INDEX}")
    }
    issue = Issue(
        timestamp=max(
            (int(header.get("TIMESTAMP", "0")) for header, _ in indexes.values()), default=0
        ),
        created=0,
        views={view: len(stanzas) for view, (_, stanzas) in indexes.items()},
        packages=0,
    )
    return Generation(int(folder.name), Source(set="", signer="", revisions={}), issue)


def restore_paths(binhost: Path) -> None:
    """Write `published.json` again, from the ledgers and indexes of all generations.

    The digest of a path that only an index has is "unknown": no build can have that path again.
    """
    paths: dict[str, str] = {}
    for number in generation.numbers(binhost):
        folder = binhost / "gen" / str(number)
        for place in folder.rglob(INDEX):
            for stanza in index.parse(_text(place) or "")[1]:
                paths.setdefault(stanza.get("PATH", ""), "unknown")
        paths |= {path: each.collected for path, each in (_ledger(folder) or {}).items()}
    published.write_paths(binhost, paths)


def _facts(folder: Path) -> Generation | None:
    try:
        return generation.load_folder(folder)
    except BinmillError:
        return None


def _ledger(folder: Path) -> dict[str, SignedPackage] | None:
    """The ledger of a generation; None if it is unreadable, {} for a version without ledgers."""
    if not (folder / LEDGER).exists() and (folder / INDEX).exists():
        return {}
    try:
        return published.read_ledger(folder)
    except BinmillError:
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


def _packed(place: Path) -> Path:
    return place.with_name(f"{place.name}.gz")
