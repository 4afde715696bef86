"""What was published: every path for ever, and what each kept generation's files are.

`published.json` has every path that a binhost ever gave, so that none gets other bytes. A
generation's `ledger.json` has the sizes and digests of its signed files: the next generation
takes over what it has in common with it, and reads no byte of that again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.portage.index import Sums
from tasks.system.files import digests, write_atomic, write_parts

FACTS = "generation.json"
CANDIDATES = "candidate"  # beside gen/: made, and not published
PUBLISHED = "published.json"
LEDGER = "ledger.json"
_SUMS = ("size", "md5", "sha1", "sha512", "mtime")


@dataclass(frozen=True)
class File:
    """A signed package: where it lies, what it is, and the SHA-512 of what was collected.

    `origin` is where it was built from (provenance.origin), `component` its part of the bill of
    materials (sbom.components); "" where that is not known.
    """

    place: Path
    sums: Sums
    collected: str
    origin: str = ""
    component: str = ""


def numbers(binhost: Path, where: str = "gen") -> list[int]:
    """The generations that are kept, oldest first; or the candidates."""
    folder = binhost / where
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def place(binhost: Path, number: int) -> Path:
    """Where a generation lies, or the candidate that may become it."""
    published = binhost / "gen" / str(number)
    candidate = binhost / CANDIDATES / str(number)
    return candidate if candidate.is_dir() and not published.is_dir() else published


def facts(binhost: Path, number: int) -> dict[str, Any]:
    """What a generation or a candidate says of itself."""
    return facts_in(place(binhost, number))


def facts_in(folder: Path) -> dict[str, Any]:
    """What the generation in a folder says of itself."""
    return _read(folder / FACTS)


def published(binhost: Path) -> dict[str, str]:
    """Every package path that was ever published here, with the SHA-512 of what was collected.

    A path never gets another package: a client that has an index from yesterday would get bytes
    that do not fit it.
    """
    return _read(binhost / PUBLISHED) if (binhost / PUBLISHED).exists() else {}


def add_published(binhost: Path, files: Mapping[str, File]) -> None:
    """Remember these paths for ever; raises BinmillError if one of them was another package."""
    known = published(binhost)
    for path, file in files.items():
        if known.setdefault(path, file.collected) != file.collected:
            raise _refused(binhost, path)
    lines = (f"{json.dumps(path)}: {json.dumps(known[path])}" for path in sorted(known))
    write_parts(binhost / PUBLISHED, _object(lines))


def check(binhost: Path, files: Mapping[str, File]) -> None:
    """Raise BinmillError if one of these paths was another package before."""
    known = published(binhost)
    for path, file in files.items():
        if known.get(path, file.collected) != file.collected:
            raise _refused(binhost, path)


def _refused(binhost: Path, path: str) -> BinmillError:
    """What is said of a path that was another package."""
    return BinmillError(
        f"{path} was published before with other content",
        f"run `doit clean binpkgs:{binhost.name}` and build again",
    )


def held(binhost: Path, packages: Sequence[Mapping[str, Any]], signer: str) -> dict[str, File]:
    """The files of packages that a kept generation has, signed by this key already, by path.

    Their digests are taken over from there. Raises BinmillError for a file that is not as long
    as it was published.
    """
    known, found = published(binhost), dict[str, File]()
    missing = {p["path"]: p["sha512"] for p in packages if known.get(p["path"]) == p["sha512"]}
    for number in reversed(numbers(binhost)):
        if not missing:
            break
        if facts(binhost, number).get("signer") == signer:
            found |= _in_generation(binhost / "gen" / str(number), missing)
            missing = {path: digest for path, digest in missing.items() if path not in found}
    return found


def _in_generation(folder: Path, wanted: Mapping[str, str]) -> dict[str, File]:
    if not (folder / LEDGER).exists():  # of a release that had no views and no such file
        places = {path: folder / path for path in wanted if (folder / path).is_file()}
        return {path: file_of(place, wanted[path]) for path, place in places.items()}
    found = {}
    for path, file in files(folder).items():
        if wanted.get(path) == file.collected:
            if file.place.stat().st_size != file.sums["size"]:
                raise BinmillError(
                    f"{file.place} is not the file that was published",
                    "run `doit fsck --repair`, and it is signed again",
                )
            found[path] = file
    return found


def _sums(entry: Mapping[str, Any]) -> Sums:
    sums: Sums = {key: entry[key] for key in _SUMS}  # type: ignore[assignment]
    return sums


def file_of(place: Path, collected: str) -> File:
    """A file that was just signed; it is read once."""
    status = place.stat()
    sums = digests(place, "md5", "sha1", "sha512")
    return File(
        place,
        Sums(
            size=status.st_size,
            md5=sums["md5"],
            sha1=sums["sha1"],
            sha512=sums["sha512"],
            mtime=int(status.st_mtime),
        ),
        collected,
    )


def files(folder: Path) -> dict[str, File]:
    """The packages of a generation, by path."""
    kept = _read(folder / LEDGER)
    return {
        path: File(
            folder / entry["view"] / path,
            _sums(entry),
            entry["collected"],
            kept["origins"][entry["origin"]],
            entry["component"],
        )
        for path, entry in kept["packages"].items()
    }


def packages(folder: Path) -> dict[str, Any] | None:
    """What the files of a generation are, by path; None where that cannot be read.

    Nothing is known of those of a release that had no such file.
    """
    if not (folder / LEDGER).exists():
        return None if _has_views(folder) else {}
    try:
        return dict(_read(folder / LEDGER)["packages"])
    except (BinmillError, OSError, LookupError, TypeError, ValueError):
        return None


def _has_views(folder: Path) -> bool:
    """Whether a generation is of a release whose generations have a ledger."""
    return not (folder / "Packages").exists()


def forget(folder: Path, paths: Collection[str]) -> None:
    """Let a generation say nothing of these files any more; where it cannot be read, of none."""
    kept = packages(folder)
    if not (folder / LEDGER).exists() and kept is not None:
        return  # of a release that had no such file: what is not there is not held
    read = {"origins": [], "packages": {}} if kept is None else _read(folder / LEDGER)
    left = {path: entry for path, entry in (kept or {}).items() if path not in paths}
    write_atomic(
        folder / LEDGER, json.dumps({**read, "packages": left}, indent=0, sort_keys=True) + "\n"
    )


def views(folder: Path) -> list[str]:
    """The views that a generation says it has; none where that cannot be read."""
    try:
        return sorted(_read(folder / FACTS)["views"])
    except (BinmillError, OSError, LookupError, TypeError):
        return []


def write_packages(folder: Path, files: Mapping[str, File], views: Mapping[str, str]) -> None:
    """Keep what a generation's files are; `views` says in which view (a folder) each path lies."""
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
        raise BinmillError(
            f"{path} cannot be read ({error})",
            "run `doit fsck --repair`",
        ) from error
    if not isinstance(loaded, dict):
        raise BinmillError(f"{path} cannot be read (no object)", "run `doit fsck --repair`")
    return loaded
