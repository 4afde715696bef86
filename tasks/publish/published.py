"""The published packages of a binhost, and what its generations say of themselves.

`published.json` lists every path that a binhost ever served, so that none gets other bytes. The
`ledger.json` of a generation has the sizes and digests of its signed packages: the next
generation reuses those that it has in common, and reads no byte of them again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.domain import Package
from tasks.errors import BinmillError
from tasks.portage.index import Sums
from tasks.system.files import digests, write_atomic, write_parts

FACTS = "generation.json"
CANDIDATES = "candidate"  # beside gen/: not published yet
PUBLISHED = "published.json"
LEDGER = "ledger.json"
_SUMS = ("size", "md5", "sha1", "sha512", "mtime")


@dataclass(frozen=True)
class SignedPackage:
    """A signed package: its location and sums, and the SHA-512 of the collected (unsigned) file.

    `origin` is a text of provenance.origin, `component` one of sbom.components; "" where unknown.
    """

    location: Path
    sums: Sums
    collected: str
    origin: str = ""
    component: str = ""


File = SignedPackage  # until flow/ has the new name


def numbers(binhost: Path, where: str = "gen") -> list[int]:
    """The numbers of the generations, or of the CANDIDATES; oldest first."""
    folder = binhost / where
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def place(binhost: Path, number: int) -> Path:
    """The folder of a generation, or of the candidate that may become it."""
    published = binhost / "gen" / str(number)
    candidate = binhost / CANDIDATES / str(number)
    return candidate if candidate.is_dir() and not published.is_dir() else published


def facts(binhost: Path, number: int) -> dict[str, Any]:
    """The plain data of a generation or candidate's generation.json."""
    return facts_in(place(binhost, number))


def facts_in(folder: Path) -> dict[str, Any]:
    """The plain data of the generation.json in a folder."""
    return _read(folder / FACTS)


def published(binhost: Path) -> dict[str, str]:
    """Every package path that was ever published, with the SHA-512 of the collected package.

    A path never gets another package: a client with yesterday's index would get bytes that do not
    match it.
    """
    return _read(binhost / PUBLISHED) if (binhost / PUBLISHED).exists() else {}


def add_published(binhost: Path, files: Mapping[str, SignedPackage]) -> None:
    """Add paths to `published.json`; raises BinmillError if one of them was another package."""
    known = published(binhost)
    for path, file in files.items():
        if known.setdefault(path, file.collected) != file.collected:
            raise _refused(binhost, path)
    lines = (f"{json.dumps(path)}: {json.dumps(known[path])}" for path in sorted(known))
    write_parts(binhost / PUBLISHED, _object(lines))


def check(binhost: Path, files: Mapping[str, SignedPackage]) -> None:
    """Raise BinmillError if one of these paths was another package before."""
    known = published(binhost)
    for path, file in files.items():
        if known.get(path, file.collected) != file.collected:
            raise _refused(binhost, path)


def _refused(binhost: Path, path: str) -> BinmillError:
    return BinmillError("path-already-published", path=path, chroot=binhost.name)


def held(binhost: Path, packages: Sequence[Package], signer: str) -> dict[str, SignedPackage]:
    """The packages that a generation has already, signed by this key, by path.

    Their sums are read from its ledger. Raises BinmillError for a file whose size has changed.
    """
    known, reused = published(binhost), dict[str, SignedPackage]()
    missing = {p.path: p.sha512 for p in packages if known.get(p.path) == p.sha512}
    for number in reversed(numbers(binhost)):
        if not missing:
            break
        if facts(binhost, number).get("signer") == signer:
            reused |= _in_generation(binhost / "gen" / str(number), missing)
            missing = {path: digest for path, digest in missing.items() if path not in reused}
    return reused


def _in_generation(folder: Path, wanted: Mapping[str, str]) -> dict[str, SignedPackage]:
    if not (folder / LEDGER).exists():  # of a version without views and ledgers
        locations = {path: folder / path for path in wanted if (folder / path).is_file()}
        return {path: file_of(location, wanted[path]) for path, location in locations.items()}
    packages = {}
    for path, package in files(folder).items():
        if wanted.get(path) == package.collected:
            if package.location.stat().st_size != package.sums["size"]:
                raise BinmillError("published-package-modified", path=package.location)
            packages[path] = package
    return packages


def _sums(entry: Mapping[str, Any]) -> Sums:
    sums: Sums = {key: entry[key] for key in _SUMS}  # type: ignore[assignment]
    return sums


def file_of(location: Path, collected: str) -> SignedPackage:
    """A package that was just signed; reads it once for its sums."""
    status = location.stat()
    sums = digests(location, "md5", "sha1", "sha512")
    return SignedPackage(
        location,
        Sums(
            size=status.st_size,
            md5=sums["md5"],
            sha1=sums["sha1"],
            sha512=sums["sha512"],
            mtime=int(status.st_mtime),
        ),
        collected,
    )


def files(folder: Path) -> dict[str, SignedPackage]:
    """The packages of a generation, by path."""
    ledger = _read(folder / LEDGER)
    return {
        path: SignedPackage(
            folder / entry["view"] / path,
            _sums(entry),
            entry["collected"],
            ledger["origins"][entry["origin"]],
            entry["component"],
        )
        for path, entry in ledger["packages"].items()
    }


def packages(folder: Path) -> dict[str, Any] | None:
    """The ledger's entries by path; None if it is unreadable, {} for a version without ledgers."""
    if not (folder / LEDGER).exists():
        return None if _has_views(folder) else {}
    try:
        return dict(_read(folder / LEDGER)["packages"])
    except (BinmillError, OSError, LookupError, TypeError, ValueError):
        return None


def _has_views(folder: Path) -> bool:
    """True for a generation with views, and so with a ledger."""
    return not (folder / "Packages").exists()


def forget(folder: Path, paths: Collection[str]) -> None:
    """Remove packages from the ledger of a generation; an unreadable ledger becomes empty."""
    entries = packages(folder)
    if not (folder / LEDGER).exists() and entries is not None:
        return  # of a version without ledgers
    ledger = {"origins": [], "packages": {}} if entries is None else _read(folder / LEDGER)
    left = {path: entry for path, entry in (entries or {}).items() if path not in paths}
    ledger["packages"] = left
    write_atomic(folder / LEDGER, json.dumps(ledger, indent=0, sort_keys=True) + "\n")


def views(folder: Path) -> list[str]:
    """The views that a generation lists; [] if that is unreadable."""
    try:
        return sorted(_read(folder / FACTS)["views"])
    except (BinmillError, OSError, LookupError, TypeError):
        return []


def write_packages(
    folder: Path, files: Mapping[str, SignedPackage], views: Mapping[str, str]
) -> None:
    """Write the ledger of a generation; `views` names a view (a folder) that has each path."""
    origins = sorted({file.origin for file in files.values()})
    numbers = {text: number for number, text in enumerate(origins)}

    def line(path: str) -> str:
        file = files[path]
        entry = {
            **file.sums,
            "collected": file.collected,
            "component": file.component,
            "origin": numbers[file.origin],
            "view": views[path],
        }
        return f"{json.dumps(path)}: {json.dumps(entry, sort_keys=True)}"

    head = f'"origins": {json.dumps(origins)},\n"packages": '
    parts = _object(map(line, sorted(files)))
    write_parts(folder / LEDGER, itertools.chain((b"{\n", head.encode()), parts, (b"}\n",)))


def _object(lines: Iterable[str]) -> Iterator[bytes]:
    """A JSON object, one key a line."""
    yield b"{"
    for number, line in enumerate(lines):
        yield f"{',' if number else ''}\n{line}".encode()
    yield b"\n}\n"


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BinmillError("binhost-file-unreadable", path=path, cause=str(error)) from error
    if not isinstance(loaded, dict):
        raise BinmillError("binhost-file-unreadable", path=path, cause="not a JSON object")
    return loaded
