"""The mirror's distfiles: only what a Manifest names, each under two names (GLEP 74, GLEP 75)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import BinmillError, NotTrusted
from tasks.system.files import copy_plain, digests, sync_folder, write_atomic

LAYOUT = "[structure]\n0=filename-hash BLAKE2B 8\n1=flat\n"
_NAME = re.compile(r"[^/.\x00-\x20\x7f][^/\x00-\x20\x7f]{0,254}")
_REQUIRED = ("BLAKE2B", "SHA512")  # Gentoo's manifest-hashes; a line with less is not enough
_CLOSED = frozenset({"fetch", "mirror"})


@dataclass(frozen=True)
class Dist:
    """A DIST line: size in bytes, digests in hex by hashlib name."""

    size: int
    digests: tuple[tuple[str, str], ...]


def parse(manifest: str) -> Iterator[tuple[str, Dist]]:
    """The DIST lines of a Manifest that can be trusted with a file; others are passed over."""
    for line in manifest.split("\n"):
        words = line.split()
        if len(words) < 3 or words[0] != "DIST" or not _NAME.fullmatch(words[1]):
            continue
        sums = dict(zip(words[3::2], words[4::2], strict=False))
        if words[2].isdecimal() and all(name in sums for name in _REQUIRED):
            hashes = tuple((name.lower(), sums[name].lower()) for name in _REQUIRED)
            yield words[1], Dist(int(words[2]), hashes)


def wanted(trees: Iterable[Path]) -> dict[str, dict[Dist, bool]]:
    """Every distfile that the trees name: what it may be, and whether anybody may have that.

    Anybody may, if every package that names it has ebuilds, each of them is in the metadata cache
    of its tree (PMS 14), and none restricts fetching or mirroring, under any USE flag.
    """
    found: dict[str, dict[Dist, bool]] = {}
    for tree in trees:
        for manifest in tree.glob("*/*/Manifest"):
            free: bool | None = None
            for name, dist in parse(manifest.read_text(encoding="utf-8", errors="replace")):
                if free is None:
                    free = _may_be_mirrored(tree, manifest.parent)
                known = found.setdefault(name, {})
                known[dist] = free and known.get(dist, True)
    return found


def hashed_path(name: str) -> str:
    """Where a file lies by its name's hash: the first 8 bits of BLAKE2B, in hex (GLEP 75)."""
    return f"{hashlib.blake2b(name.encode()).hexdigest()[:2]}/{name}"


def check(path: Path, name: str, known: Mapping[Dist, bool]) -> Dist:
    """The DIST line that a file of ours fits; raises NotTrusted if it fits none."""
    fitting = _fitting(path.stat().st_size, name, known)
    sums = digests(path, *(name.lower() for name in _REQUIRED))
    for dist in fitting:
        if all(sums[algorithm] == digest for algorithm, digest in dist.digests):
            return dist
    raise NotTrusted(f"{name} does not have the digests of its Manifest", "get it from its source")


def let_in(
    source: Path,
    name: str,
    known: Mapping[Dist, bool],
    folder: Path,
    copy: Callable[[Path, Path], object] = copy_plain,
) -> Dist:
    """Copy a file, which may be anything, and give it its two names if the copy fits.

    `folder` is a group's distfiles. Raises NotTrusted, or BinmillError for what is no plain file.
    """
    _fitting(source.lstat().st_size, name, known)  # before anything of any size is copied
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{secrets.token_hex(8)}.new"
    try:
        copy(source, scratch)  # what is checked can no longer be changed from inside
        dist = check(scratch, name, known)
        hashed = folder / hashed_path(name)
        hashed.parent.mkdir(exist_ok=True)
        for target in (hashed, folder / name):
            link = target.with_name(f".{secrets.token_hex(8)}.link")
            os.link(scratch, link)
            link.replace(target)
            link.unlink(missing_ok=True)  # rename(2) does nothing if both are one file already
            sync_folder(target.parent)
    finally:
        scratch.unlink(missing_ok=True)
    if not (folder / "layout.conf").is_file():
        write_atomic(folder / "layout.conf", LAYOUT)
    return dist


def held(folder: Path) -> set[str]:
    """The names of the distfiles that a group has."""
    if not folder.is_dir():
        return set()
    return {
        entry.name
        for entry in folder.iterdir()
        if entry.is_file() and entry.name != "layout.conf" and not entry.name.startswith(".")
    }


def drop(folder: Path, name: str) -> None:
    """Delete a distfile by both names; who is downloading it has it open, and goes on."""
    for path in (folder / hashed_path(name), folder / name):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others are in it
        (folder / hashed_path(name)).parent.rmdir()


def ageing(
    names: Set[str], named: Set[str], since: Mapping[str, float], now: float
) -> dict[str, float]:
    """Since when (epoch seconds) each file that no Manifest names has been seen so; pure."""
    return {name: min(now, since.get(name, now)) for name in sorted(names - named)}


def outdated(since: Mapping[str, float], now: float, keep_days: int) -> list[str]:
    """The files that nobody has named for `keep_days`; pure."""
    return sorted(name for name, began in since.items() if now - began >= keep_days * 86400)


def tidy(folder: Path, named: Set[str], now: float, keep_days: int) -> list[str]:
    """Delete a group's files that have not been named for `keep_days`; returns their names.

    What was unnamed and when is kept beside them; without it, the count begins anew.
    """
    if not folder.is_dir():
        return []
    file = folder / ".unnamed.json"
    since: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        since = {str(name): float(began) for name, began in json.loads(file.read_text()).items()}
    since = ageing(held(folder), named, since, now)
    gone = outdated(since, now, keep_days)
    for name in gone:
        drop(folder, name)
        del since[name]
    write_atomic(file, json.dumps(since, sort_keys=True) + "\n")
    for left in folder.glob(".*.new"):  # of a killed run
        left.unlink(missing_ok=True)
    return gone


def add(source: Path, known: Mapping[str, Mapping[Dist, bool]], folder: Path) -> str:
    """An administrator's file into a group's distfiles; returns its name."""
    name = source.name
    if name not in known:
        raise BinmillError(
            f"no Manifest of the locked tree and overlays names {name[:100]}",
            "the file must have the name of its DIST line; or run `doit lock` for a newer tree",
        )
    if not source.is_file():
        what = "is not a file" if source.exists() else "does not exist"
        raise BinmillError(f"{source} {what}", "give the path of the file")
    # a person's file may be a link and have many names; what it has in it is checked all the same
    let_in(source.resolve(), name, known[name], folder, shutil.copyfile)
    return name


def _fitting(size: int, name: str, known: Mapping[Dist, bool]) -> list[Dist]:
    fitting = [dist for dist in known if dist.size == size]
    if not fitting:
        sizes = " or ".join(str(dist.size) for dist in known)
        raise NotTrusted(
            f"{name} has {size} bytes, and should have {sizes}",
            "is it whole, and of the right version?",
        )
    return fitting


def _may_be_mirrored(tree: Path, package: Path) -> bool:
    ebuilds = list(package.glob("*.ebuild"))
    for ebuild in ebuilds:
        cache = tree / "metadata" / "md5-cache" / package.parent.name / ebuild.stem
        try:
            lines = cache.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return False
        for line in lines:
            if line.startswith("RESTRICT=") and _CLOSED & set(line.partition("=")[2].split()):
                return False
    return bool(ebuilds)
