"""Changes between two frozen days, by package.

One `git diff-tree` lists the files that differ, one listing of the older day the versions that
existed; the rest is sorting. File names are hostile: what is no package by the rules of the
Package Manager Specification (PMS) is listed as a path, and an odd path only in escaped form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError, Stale
from tasks.snapshot import frozen_days
from tasks.system.git import bare, explained

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PACKAGE = re.compile(  # category/package/rest, PMS 3.1.1 and 3.1.2
    r"(?s)(?!(?:eclass|licenses|metadata|profiles|scripts)/)"
    r"([A-Za-z0-9_][A-Za-z0-9+_.-]*/[A-Za-z0-9_][A-Za-z0-9+_-]*)/(.+)"
)
_VERSION = re.compile(  # PMS 3.2
    r"([0-9]+(?:\.[0-9]+)*)([a-z]?)((?:_(?:alpha|beta|pre|rc|p)[0-9]*)*)(?:-r([0-9]+))?"
)
_SUFFIXES = ("alpha", "beta", "pre", "rc", "", "p")  # in their order; "" is a plain release
# Patterns for all other paths, the first match counts; the group is the name in the list. `derived`
# are files that a mirror's snapshot has beside the repository's own, generated from those.
_PLACES = {
    "derived": r"(?s)(metadata/md5-cache/.*|metadata/pkg_desc_index|metadata/(?:.*/)?timestamp[^/]*"
    r"|profiles/use\.local\.desc|(?:.*/)?Manifest(?:\.files)?(?:\.gz)?)",
    "eclasses": r"(?s)eclass/(.+)\.eclass",
    "profiles": r"(?s)profiles/(.+)",
    "licenses": r"(?s)licenses/(.+)",
    "news": r"(?s)metadata/news/([^/]+)/.+",
    "glsa": r"(?s)metadata/glsa/(glsa-.+)\.xml",
    "other": r"(?s)(.+)",
}
_HOW = {"A": "new", "D": "gone"}  # git's letters; any other is a change
# A package is new or gone as a whole; bumped: a version was added, whatever else happened;
# trimmed: versions were removed, none added; changed: the same versions, other ebuilds; touched:
# files/, Manifest or metadata.xml only.
KINDS = ("new", "gone", "bumped", "trimmed", "changed", "touched")


@dataclass(frozen=True)
class PackageChange:
    """The versions of a package on two days, oldest first (PMS 3.3).

    `changed` are versions of both days whose ebuild differs.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def added(self) -> list[str]:
        """Versions of the later day only."""
        return [version for version in self.after if version not in self.before]

    @property
    def removed(self) -> list[str]:
        """Versions of the earlier day only."""
        return [version for version in self.before if version not in self.after]

    @property
    def kind(self) -> str:
        """One of KINDS."""
        if self.added:
            return "bumped" if self.before else "new"
        if self.removed:
            return "trimmed" if self.after else "gone"
        return "changed" if self.changed else "touched"


@dataclass(frozen=True)
class Changes:
    """The difference between two days.

    `files` counts all that differ; `derived` of them are generated from others (md5-cache,
    Manifests of whole folders, times) and listed nowhere. `packages` are sorted by name. `others`
    maps eclasses, profiles (paths below profiles/), licenses, news, glsa and other (whole paths)
    to names, sorted, that are "new", "gone" or "changed".
    """

    since: str
    until: str
    files: int
    derived: int
    packages: tuple[PackageChange, ...]
    others: Mapping[str, Mapping[str, str]]

    def of_kind(self, kind: str) -> list[PackageChange]:
        """The packages of one of KINDS."""
        return [package for package in self.packages if package.kind == kind]


def choose_days(tags: list[str], days: list[str]) -> tuple[str, str]:
    """Choose the two days to compare: the last two, one and the newest, or the two given.

    Raises Stale when too few are frozen, BinmillError for a day that is not.
    """
    tags = sorted(tags)
    if not tags:
        raise Stale("nothing-frozen")
    if len(tags) < 2:
        raise Stale("one-day-frozen", day=tags[0])
    days = [frozen_days.require(day, tags) for day in days]
    if len(days) > 2:
        raise BinmillError("too-many-days", number=len(days))
    if days == tags[-1:]:
        raise BinmillError("day-is-newest", day=days[0])
    old, new = (*days, tags[-1])[:2] if days else tags[-2:]
    return old, new


def compare(repository: Path, old: str, new: str) -> Changes:
    """Compare two days, or two commits by their full ids.

    Raises Stale when there is no repository yet, BinmillError for a day that is not in it.
    """
    listing = _output(repository, "ls-tree -r --name-only", old)
    fields = iter(_output(repository, "diff-tree -r --no-renames --name-status", old, new))
    return sort_changes(old, new, list(zip(fields, fields, strict=True)), listing)


def _output(repository: Path, command: str, *commits: str) -> list[str]:
    """Run a git command on these commits, each of which may be a day; returns its fields (-z)."""
    if not (repository / "HEAD").exists():
        raise Stale("nothing-frozen")
    tags = frozen_days.tags(repository)
    for name in commits:  # only these get onto git's command line
        if name not in tags and not _COMMIT.fullmatch(name):
            raise BinmillError("day-not-frozen", day=name, newest=tags[-5:])
    names = [f"refs/tags/{name}" if name in tags else name for name in commits]
    with explained("days-unreadable", days=commits, path=repository):
        out = bare(repository).git.execute(["git", *command.split(), "-z", *names, "--"])
    return str(out).split("\0")[:-1]


def sort_changes(
    old: str, new: str, differing: list[tuple[str, str]], listing: list[str]
) -> Changes:
    """Sort git's output: `differing` is (letter, path), `listing` every path of the older day."""
    ebuilds: dict[str, dict[str, str]] = {}  # package -> version -> letter
    places: dict[str, dict[str, str]] = {place: {} for place in _PLACES}
    for letter, path in differing:
        if match := _PACKAGE.fullmatch(path):
            versions = ebuilds.setdefault(match[1], {})
            if version := _version(match[1], match[2]):
                versions[version] = letter
        else:
            place, name = _place(path)
            how = _HOW.get(letter, "changed")
            # of a news item's files, one may be new and another may not
            places[place][name] = how if places[place].get(name, how) == how else "changed"
    derived = len(places.pop("derived"))
    others = {place: dict(sorted(names.items())) for place, names in places.items()}
    return Changes(old, new, len(differing), derived, _packages(ebuilds, listing), others)


def _packages(
    ebuilds: Mapping[str, Mapping[str, str]], listing: Iterable[str]
) -> tuple[PackageChange, ...]:
    before: dict[str, set[str]] = {name: set() for name in ebuilds}
    for path in listing:
        match = _PACKAGE.fullmatch(path) if path.endswith(".ebuild") else None
        if match and match[1] in before and (version := _version(match[1], match[2])):
            before[match[1]].add(version)
    packages = []
    for name, letters in sorted(ebuilds.items()):
        added, removed = ({v for v in letters if letters[v] == letter} for letter in "AD")
        after, changed = (before[name] - removed) | added, set(letters) - added - removed
        versions = (tuple(sorted(each, key=version_key)) for each in (before[name], after, changed))
        packages.append(PackageChange(name, *versions))
    return tuple(packages)


def _version(package: str, file: str) -> str | None:
    """Parse the version of an ebuild in a package's folder; None for any other file."""
    start, end = f"{package.partition('/')[2]}-", ".ebuild"
    version = file.removeprefix(start).removesuffix(end)
    return version if file == start + version + end and _VERSION.fullmatch(version) else None


def _place(path: str) -> tuple[str, str]:
    matches = ((place, re.fullmatch(pattern, path)) for place, pattern in _PLACES.items())
    place, name = next((place, match[1]) for place, match in matches if match)
    # a repository's names are printable ASCII (GLEP 31); others are escaped
    return place, name if name.isascii() and name.isprintable() else ascii(name)


def version_key(version: str) -> tuple[Any, ...]:
    """Return the key by which versions sort as in PMS 3.3."""

    def number(digits: str) -> tuple[int, str]:  # of any length; int() has a limit
        digits = digits.lstrip("0")
        return len(digits), digits

    numbers, letter, suffixes, revision = _VERSION.findall(version)[0]
    first, *rest = numbers.split(".")
    parts = [*re.findall(r"_([a-z]+)([0-9]*)", suffixes), ("", "")]
    return (
        number(first),
        # with a leading zero it is a decimal fraction, and less than any without
        tuple((0, 0, d.rstrip("0")) if d.startswith("0") else (1, *number(d)) for d in rest),
        letter,
        tuple((_SUFFIXES.index(suffix), number(digits)) for suffix, digits in parts),
        number(revision),
        version,
    )
