"""The published packages of a binhost: every path for ever, and the ledger of each generation.

`published.json` lists every path that a binhost ever served, so that none gets other bytes. The
`ledger.json` of a generation has the sums of its signed packages: the next generation reuses
those that it has in common, and reads no byte of them again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.domain import Package
from tasks.errors import BinmillError
from tasks.portage.index import Sums
from tasks.publish import generation
from tasks.publish.generation import read_object
from tasks.system.files import digests, write_parts

PATHS = "published.json"
LEDGER = "ledger.json"


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

    @classmethod
    def read(cls, location: Path, collected: str) -> SignedPackage:
        """A package that was just signed; reads it once for its sums."""
        status = location.stat()
        sums = digests(location, "md5", "sha1", "sha512")
        return cls(
            location,
            Sums(size=status.st_size, mtime=int(status.st_mtime), **sums),
            collected,
        )


def read_paths(binhost: Path) -> dict[str, str]:
    """Every package path that was ever published, with the SHA-512 of the collected package.

    A path never gets another package: a client with yesterday's index would get bytes that do not
    match it.
    """
    return read_object(binhost / PATHS) if (binhost / PATHS).exists() else {}


def write_paths(binhost: Path, paths: Mapping[str, str]) -> None:
    """Write `published.json`: the paths of `read_paths`."""
    lines = (f"{json.dumps(path)}: {json.dumps(paths[path])}" for path in sorted(paths))
    write_parts(binhost / PATHS, _object(lines))


def add_paths(binhost: Path, packages: Mapping[str, SignedPackage]) -> None:
    """Add paths to `published.json`; raises BinmillError if one of them was another package."""
    write_paths(binhost, _merge(binhost, packages))


def check_paths(binhost: Path, packages: Mapping[str, SignedPackage]) -> None:
    """Raise BinmillError if one of these paths was another package before."""
    _merge(binhost, packages)


def _merge(binhost: Path, packages: Mapping[str, SignedPackage]) -> dict[str, str]:
    paths = read_paths(binhost)
    for path, package in packages.items():
        if paths.setdefault(path, package.collected) != package.collected:
            raise BinmillError("path-already-published", path=path, chroot=binhost.name)
    return paths


def reusable(binhost: Path, packages: Sequence[Package], signer: str) -> dict[str, SignedPackage]:
    """The packages that a generation has already, signed by this key, by path.

    Their sums are read from its ledger. Raises BinmillError for a file whose size has changed.
    """
    paths, reused = read_paths(binhost), dict[str, SignedPackage]()
    missing = {p.path: p.sha512 for p in packages if paths.get(p.path) == p.sha512}
    for number in reversed(generation.numbers(binhost)):
        if not missing:
            break
        if generation.load(binhost, number).source.signer == signer:
            reused |= _in_generation(binhost / "gen" / str(number), missing)
            missing = {path: digest for path, digest in missing.items() if path not in reused}
    return reused


def _in_generation(folder: Path, wanted: Mapping[str, str]) -> dict[str, SignedPackage]:
    if not (folder / LEDGER).exists():  # of a version without views and ledgers
        locations = {path: folder / path for path in wanted if (folder / path).is_file()}
        return {path: SignedPackage.read(place, wanted[path]) for path, place in locations.items()}
    packages = {}
    for path, package in read_ledger(folder).items():
        if wanted.get(path) == package.collected:
            if package.location.stat().st_size != package.sums.size:
                raise BinmillError("published-package-modified", path=package.location)
            packages[path] = package
    return packages


def read_ledger(folder: Path) -> dict[str, SignedPackage]:
    """The packages of a generation, by path; raises BinmillError for an unreadable ledger."""
    ledger = read_object(folder / LEDGER)
    try:
        origins = ledger["origins"]
        return {
            path: SignedPackage(
                location=folder / entry["view"] / path,
                sums=Sums(
                    entry["size"], entry["md5"], entry["sha1"], entry["sha512"], entry["mtime"]
                ),
                collected=entry["collected"],
                origin=origins[entry["origin"]],
                component=entry["component"],
            )
            for path, entry in ledger["packages"].items()
        }
    except (LookupError, TypeError, AttributeError) as error:
        raise BinmillError(
            "binhost-file-unreadable", path=folder / LEDGER, cause=repr(error)
        ) from error


def write_ledger(
    folder: Path, packages: Mapping[str, SignedPackage], views: Mapping[str, str]
) -> None:
    """Write the ledger of a generation; `views` names a view (a folder) that has each path."""
    origins = sorted({package.origin for package in packages.values()})
    numbers = {text: number for number, text in enumerate(origins)}

    def line(path: str) -> str:
        package = packages[path]
        entry = {
            **vars(package.sums),
            "collected": package.collected,
            "component": package.component,
            "origin": numbers[package.origin],
            "view": views[path],
        }
        return f"{json.dumps(path)}: {json.dumps(entry, sort_keys=True)}"

    head = f'"origins": {json.dumps(origins)},\n"packages": '
    parts = _object(map(line, sorted(packages)))
    write_parts(folder / LEDGER, itertools.chain((b"{\n", head.encode()), parts, (b"}\n",)))


def _object(lines: Iterable[str]) -> Iterator[bytes]:
    """A JSON object, one key a line."""
    yield b"{"
    for number, line in enumerate(lines):
        yield f"{',' if number else ''}\n{line}".encode()
    yield b"\n}\n"
