"""Distfiles of the mirror: only files that a Manifest lists, each by two names (GLEP 74, 75)."""

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

LAYOUT_CONF = "[structure]\n0=filename-hash BLAKE2B 8\n1=flat\n"
_NAME = re.compile(r"[^/.\x00-\x20\x7f][^/\x00-\x20\x7f]{0,254}")
_REQUIRED = ("BLAKE2B", "SHA512")  # Gentoo's manifest-hashes; a line with less is not enough
_CLOSED = frozenset({"fetch", "mirror"})


@dataclass(frozen=True)
class Dist:
    """A DIST line: size in bytes, digests in hex by hashlib name."""

    size: int
    digests: tuple[tuple[str, str], ...]


def dist_lines(manifest: str) -> Iterator[tuple[str, Dist]]:
    """Yield file name and content of each DIST line; skips lines without all required digests."""
    for line in manifest.split("\n"):
        words = line.split()
        if len(words) < 3 or words[0] != "DIST" or not _NAME.fullmatch(words[1]):
            continue
        sums = dict(zip(words[3::2], words[4::2], strict=False))
        if words[2].isdecimal() and all(name in sums for name in _REQUIRED):
            hashes = tuple((name.lower(), sums[name].lower()) for name in _REQUIRED)
            yield words[1], Dist(int(words[2]), hashes)


def listed_distfiles(trees: Iterable[Path]) -> dict[str, dict[Dist, bool]]:
    """Collect all distfiles of the trees: name -> DIST line -> whether the file is public.

    A file is public if every package that lists it has ebuilds, each ebuild is in the metadata
    cache of its tree (PMS 14), and none restricts fetching or mirroring under any USE flag.
    """
    listed: dict[str, dict[Dist, bool]] = {}
    for tree in trees:
        for manifest in tree.glob("*/*/Manifest"):
            public: bool | None = None
            for name, dist in dist_lines(manifest.read_text(encoding="utf-8", errors="replace")):
                if public is None:
                    public = _may_be_mirrored(tree, manifest.parent)
                dists = listed.setdefault(name, {})
                dists[dist] = public and dists.get(dist, True)
    return listed


def hashed_path(name: str) -> str:
    """The path of a file by the hash of its name: the first 8 bits of BLAKE2B (GLEP 75)."""
    return f"{hashlib.blake2b(name.encode()).hexdigest()[:2]}/{name}"


def check(path: Path, name: str, dists: Mapping[Dist, bool]) -> Dist:
    """The DIST line that matches one of our files; raises NotTrusted if none does."""
    candidates = _of_size(path.stat().st_size, name, dists)
    sums = digests(path, *(name.lower() for name in _REQUIRED))
    for dist in candidates:
        if all(sums[algorithm] == digest for algorithm, digest in dist.digests):
            return dist
    raise NotTrusted("distfile-digest-wrong", name=name)


def import_file(
    source: Path,
    name: str,
    dists: Mapping[Dist, bool],
    folder: Path,
    copy: Callable[[Path, Path], object] = copy_plain,
) -> Dist:
    """Copy an untrusted file to `folder`, a group's distfiles, under both its names.

    The copy is checked, not the original. Raises NotTrusted if no DIST line matches it,
    BinmillError if the source is not a plain file.
    """
    _of_size(source.lstat().st_size, name, dists)  # before a file of any size is copied
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{secrets.token_hex(8)}.new"
    try:
        copy(source, scratch)  # a chroot cannot change the copy after the check
        dist = check(scratch, name, dists)
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
        write_atomic(folder / "layout.conf", LAYOUT_CONF)
    return dist


def names(folder: Path) -> set[str]:
    """The names of a group's distfiles."""
    if not folder.is_dir():
        return set()
    return {
        entry.name
        for entry in folder.iterdir()
        if entry.is_file() and entry.name != "layout.conf" and not entry.name.startswith(".")
    }


def delete(folder: Path, name: str) -> None:
    """Delete a distfile by both names. Downloads of it that have begun are completed."""
    for path in (folder / hashed_path(name), folder / name):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty
        (folder / hashed_path(name)).parent.rmdir()


def unlisted_since(
    names: Set[str], listed: Set[str], since: Mapping[str, float], now: float
) -> dict[str, float]:
    """The time at which each unlisted file was first seen unlisted (epoch seconds). Pure."""
    return {name: min(now, since.get(name, now)) for name in sorted(names - listed)}


def outdated(since: Mapping[str, float], now: float, keep_days: int) -> list[str]:
    """The files that have been unlisted for `keep_days`. Pure."""
    return sorted(name for name, first in since.items() if now - first >= keep_days * 86400)


def delete_outdated(folder: Path, listed: Set[str], now: float, keep_days: int) -> list[str]:
    """Delete a group's files that no Manifest has listed for `keep_days`; returns their names.

    `.unnamed.json` beside them says when each was first seen unlisted; without it, counting
    starts again.
    """
    if not folder.is_dir():
        return []
    file = folder / ".unnamed.json"
    since: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        since = {str(name): float(first) for name, first in json.loads(file.read_text()).items()}
    since = unlisted_since(names(folder), listed, since, now)
    deleted = outdated(since, now, keep_days)
    for name in deleted:
        delete(folder, name)
        del since[name]
    write_atomic(file, json.dumps(since, sort_keys=True) + "\n")
    for scratch in folder.glob(".*.new"):  # of a killed run
        scratch.unlink(missing_ok=True)
    return deleted


def add(source: Path, listed: Mapping[str, Mapping[Dist, bool]], folder: Path) -> str:
    """Import an administrator's file into a group's distfiles; returns its name."""
    name = source.name
    if name not in listed:
        raise BinmillError("distfile-not-listed", name=name[:100])
    if not source.exists():
        raise BinmillError("distfile-missing", path=source)
    if not source.is_file():
        raise BinmillError("distfile-not-a-file", path=source)
    # an administrator's file may be a link or have several names; its content is checked anyway
    import_file(source.resolve(), name, listed[name], folder, shutil.copyfile)
    return name


def _of_size(size: int, name: str, dists: Mapping[Dist, bool]) -> list[Dist]:
    """The DIST lines with this size; raises NotTrusted if there is none."""
    candidates = [dist for dist in dists if dist.size == size]
    if not candidates:
        sizes = [str(dist.size) for dist in dists]
        raise NotTrusted("distfile-size-wrong", name=name, size=size, expected=sizes)
    return candidates


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
