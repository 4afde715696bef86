"""What changed between two frozen days, told as a Gentoo developer thinks: by package.

One `git diff-tree` says which files differ and one listing of the older day which versions there
were; the rest is sorting. File names are hostile: what is no package by the rules of the Package
Manager Specification (PMS) is listed as a path, and an odd path only in escaped form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError, Stale
from tasks.snapshot import freeze
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
# Where all else goes, the first that fits; what is in the brackets is its name there. `derived` is
# what a mirror's snapshot has beside the repository's own files, made from those.
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
_MARKS = {"new": "+", "gone": "-", "changed": ""}
_KINDS = ("new", "gone", "bumped", "trimmed", "changed", "touched")
_ONE = {"eclasses": "eclass", "profiles": "profile", "licenses": "license"}


@dataclass(frozen=True)
class Package:
    """A package in which something changed: its versions then and now, oldest first (PMS 3.3).

    `changed` are versions of both days whose ebuild has other content.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def added(self) -> list[str]:
        """Versions that were not there before."""
        return [version for version in self.after if version not in self.before]

    @property
    def removed(self) -> list[str]:
        """Versions that are not there any more."""
        return [version for version in self.before if version not in self.after]


@dataclass(frozen=True)
class Changes:
    """The difference of two days, sorted by name. Each package is in exactly one of the lists.

    `files` counts all that differ; `derived` of them are made from others (md5-cache, Manifests of
    whole folders, times) and in no list. All but packages is by name: new, gone or changed.
    """

    since: str
    until: str
    files: int
    derived: int
    new: tuple[Package, ...]
    gone: tuple[Package, ...]
    bumped: tuple[Package, ...]  # a version came, whatever else happened
    trimmed: tuple[Package, ...]  # versions went, none came
    changed: tuple[Package, ...]  # the same versions, other ebuilds
    touched: tuple[Package, ...]  # files/, Manifest or metadata.xml only
    eclasses: Mapping[str, str]
    profiles: Mapping[str, str]  # paths below profiles/
    licenses: Mapping[str, str]
    news: Mapping[str, str]
    glsa: Mapping[str, str]
    other: Mapping[str, str]  # whole paths


def pick(tags: list[str], words: list[str]) -> tuple[str, str]:
    """Which two days are meant: the last two, one against the newest, or the two that are named.

    Raises Stale when too few are frozen, BinmillError for a day that is not.
    """
    tags = sorted(tags)
    if len(tags) < 2:
        only = f"{tags[0]} is the only frozen day" if tags else "nothing is frozen yet"
        raise Stale(only, "run `doit snapshot`; what changed is told between two days")
    words = [freeze.known(word, tags) for word in words]
    if len(words) > 2:
        raise BinmillError(f"{len(words)} days are too many to compare", "doit log [DAY [DAY]]")
    if words == tags[-1:]:
        raise BinmillError(
            f"{words[0]} is the newest frozen day", "name an earlier one, or two days"
        )
    old, new = (*words, tags[-1])[:2] if words else tags[-2:]
    return old, new


def changes(repository: Path, old: str, new: str) -> Changes:
    """What changed from one day to another; a full commit id will do for a day.

    Raises Stale when there is no repository yet, BinmillError for a day that is not in it.
    """
    listed = _listed(repository, "ls-tree -r --name-only", old)
    told = iter(_listed(repository, "diff-tree -r --no-renames --name-status", old, new))
    return compared(old, new, list(zip(told, told, strict=True)), listed)  # letter, path, letter


def _listed(repository: Path, command: str, *commits: str) -> list[str]:
    """What a git command prints about these commits, each of which may be a day."""
    if not (repository / "HEAD").exists():
        raise Stale("nothing is frozen yet", "run `doit snapshot`")
    known = freeze.tags(repository)
    for name in commits:  # nothing else gets to git's command line
        if name not in known and not _COMMIT.fullmatch(name):
            raise BinmillError(f"there is no frozen day {name!r}", "`doit log` takes the last two")
    asked = [f"refs/tags/{name}" if name in known else name for name in commits]
    with explained(
        f"{' and '.join(commits)} could not be read from {repository.name}",
        f"git -C {repository} fsck looks for damage",
    ):
        out = bare(repository).git.execute(["git", *command.split(), "-z", *asked, "--"])
    return str(out).split("\0")[:-1]


def compared(old: str, new: str, differing: list[tuple[str, str]], listed: list[str]) -> Changes:
    """Sort what git said: `differing` is (letter, path), `listed` every path of the older day."""
    ebuilds: dict[str, dict[str, str]] = {}  # package -> version -> letter
    places: dict[str, dict[str, str]] = {place: {} for place in _PLACES}
    for letter, path in differing:
        if found := _PACKAGE.fullmatch(path):
            versions = ebuilds.setdefault(found[1], {})
            if version := _version(found[1], found[2]):
                versions[version] = letter
        else:
            place, name = _placed(path)
            how = _HOW.get(letter, "changed")
            # of a news item's files, one may be new and another may not
            places[place][name] = how if places[place].get(name, how) == how else "changed"
    derived = len(places.pop("derived"))
    lists: dict[str, Any] = {kind: [] for kind in _KINDS}
    for package in _packages(ebuilds, listed):
        lists[_kind(package)].append(package)
    lists = {kind: tuple(found) for kind, found in lists.items()}
    lists |= {place: dict(sorted(found.items())) for place, found in places.items()}
    return Changes(old, new, len(differing), derived, **lists)


def _packages(ebuilds: Mapping[str, Mapping[str, str]], listed: Iterable[str]) -> list[Package]:
    before: dict[str, set[str]] = {name: set() for name in ebuilds}
    for path in listed:
        found = _PACKAGE.fullmatch(path) if path.endswith(".ebuild") else None
        if found and found[1] in before and (version := _version(found[1], found[2])):
            before[found[1]].add(version)
    made = []
    for name, letters in sorted(ebuilds.items()):
        came, went = ({v for v in letters if letters[v] == letter} for letter in "AD")
        three = before[name], (before[name] - went) | came, set(letters) - came - went
        made.append(Package(name, *(tuple(sorted(versions, key=order)) for versions in three)))
    return made


def _kind(package: Package) -> str:
    if package.added:
        return "bumped" if package.before else "new"
    if package.removed:
        return "trimmed" if package.after else "gone"
    return "changed" if package.changed else "touched"


def _version(package: str, file: str) -> str | None:
    """The version of an ebuild in a package's folder; None for any other file."""
    start, end = f"{package.partition('/')[2]}-", ".ebuild"
    version = file.removeprefix(start).removesuffix(end)
    return version if file == start + version + end and _VERSION.fullmatch(version) else None


def _placed(path: str) -> tuple[str, str]:
    fits = ((place, re.fullmatch(pattern, path)) for place, pattern in _PLACES.items())
    place, name = next((place, found[1]) for place, found in fits if found)
    # a repository's names are printable ASCII (GLEP 31); others are shown for what they are
    return place, name if name.isascii() and name.isprintable() else ascii(name)


def order(version: str) -> tuple[Any, ...]:
    """The key by which versions sort as PMS 3.3 has it."""

    def number(digits: str) -> tuple[int, str]:  # of any length; int() has a limit
        digits = digits.lstrip("0")
        return len(digits), digits

    numbers, letter, suffixes, revision = _VERSION.findall(version)[0]
    first, *rest = numbers.split(".")
    words = [*re.findall(r"_([a-z]+)([0-9]*)", suffixes), ("", "")]
    return (
        number(first),
        # with a leading zero it is a decimal place, and less than any without
        tuple((0, 0, d.rstrip("0")) if d.startswith("0") else (1, *number(d)) for d in rest),
        letter,
        tuple((_SUFFIXES.index(word), number(digits)) for word, digits in words),
        number(revision),
        version,
    )


def text(changes: Changes, *, name: str = "gentoo", width: int = 100, rows: int | None = 9) -> str:
    """For a person: a headline, then each list in at most `rows` lines of `width` columns.

    With `rows` None all of it, one to a line. `1.0 -> 1.1` is the newest version then and now,
    live ones (9999) aside; `+` came, `-` went.
    """
    lists = {kind: list(map(_told, getattr(changes, kind))) for kind in _KINDS}
    for place in list(_PLACES)[1:]:  # derived ones are only counted
        lists[place] = [f"{_MARKS[how]}{path}" for path, how in getattr(changes, place).items()]
    lists = {kind: items for kind, items in lists.items() if items}
    counts = _counts(changes, lists)
    counts[0] = f"{name} {changes.since} -> {changes.until}: {counts[0]}"
    head = _rows(counts, width, len(counts)).strip()
    parts = [
        f"{kind} ({len(items):,})\n{_rows(items, width, rows)}" for kind, items in lists.items()
    ]
    return "\n\n".join([head, *parts])


def as_json(changes: Changes) -> dict[str, Any]:
    """For a program: the fields of a Changes as dicts, lists, strings and numbers."""
    return dict(json.loads(json.dumps(asdict(changes))))


def _counts(changes: Changes, lists: Mapping[str, list[str]]) -> list[str]:
    said = [f"{changes.files:,} file{'s' * (changes.files != 1)} ({changes.derived:,} derived)"]
    for kind, items in lists.items():
        word = _ONE.get(kind, kind) if len(items) == 1 else kind
        if kind in _KINDS and len(said) == 1:  # the first one says of what
            word = f"package{'s' * (len(items) != 1)} {kind}"
        said.append(f"{len(items):,} {word}")
    return said


def _told(package: Package) -> str:
    if not package.before or not package.after:
        return "-".join([package.name, *package.after[-1:]])
    was, now = (
        [v for v in versions if "9999" not in v][-1:]  # the newest, if any is a release
        for versions in (package.before, package.after)
    )
    arrow = was and now and was != now
    words = [f"{was[0]} -> {now[0]}"] if arrow else []
    words += [f"+{version}" for version in package.added if not (arrow and [version] == now)]
    words += [f"-{version}" for version in package.removed if not (arrow and [version] == was)]
    if package.changed:
        words += [f"({' '.join(package.changed)} changed)"] if words else package.changed
    return " ".join([package.name, *words])


def _rows(items: list[str], width: int, rows: int | None) -> str:
    """Items in lines, as many to a line as fit; what is over is only counted."""
    lines: list[list[str]] = []
    for item in items:
        if rows is None or not lines or len(", ".join([*lines[-1], item])) + 3 > width:
            lines.append([])
        lines[-1].append(item)
    left = sum(map(len, lines[rows:])) if rows is not None else 0
    shown = ("\n  " if rows is None else ",\n  ").join(map(", ".join, lines[:rows]))
    return f"  {shown}\n  and {left:,} more" if left else f"  {shown}"
