"""The difference between two generations, package by package. Pure.

It is read off their indexes: version, build, USE flags, dependencies, sonames, licence and size
(portage.dbapi.bintree). The provenance adds the commits and the config of each build.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks import text as words
from tasks.portage import gpkg

# CATEGORY/PN of a dependency (PMS 8.3); a version follows if there is an operator
_ATOM = re.compile(
    r"([<>=~]*)([A-Za-z0-9_][A-Za-z0-9+_.-]*/[A-Za-z0-9_][A-Za-z0-9+_.*-]*)(?:[:\[].*)?"
)
_VERSION = re.compile(r"-[0-9][A-Za-z0-9._*]*(?:-r[0-9]+)?$")
_DEPENDENCIES = ("DEPEND", "BDEPEND", "RDEPEND", "PDEPEND", "IDEPEND")
KINDS = ("new", "gone", "bumped", "rebuilt", "resigned")


Stanza = Mapping[str, str]
# The causes for which the second of two packages differs from the first; None if not known.
Causes = Callable[[Stanza, Stanza], Sequence[str] | None]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the number of a generation, its packages, and its repositories.

    Packages are stanzas of its indexes, with more keys where they are known: COMMIT (of the
    package's own repository), ETC (the id of its /etc/portage) and UNSIGNED (the SHA-512 of the
    collected file). `revisions` has the commit of each repository.
    """

    number: int
    stanzas: Sequence[Stanza]
    revisions: Mapping[str, str]


@dataclass(frozen=True)
class PackageChange:
    """The change of a package (CATEGORY/PN) in one slot.

    `before` and `after` are versions, `builds` their build numbers, `sizes` their bytes; "" and 0
    on the side without the package. `use` and `sonames` list additions with a +, removals with a
    -. `licence` has both licences if they differ. `why` lists the known causes.
    """

    name: str
    slot: str
    before: str
    after: str
    builds: tuple[str, str]
    use: tuple[str, ...]
    sonames: tuple[str, ...]
    licence: tuple[str, str] | None
    sizes: tuple[int, int]
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """The difference of two generations: each changed package in exactly one list, sorted by name.

    `revisions` has the old and new commit of each changed repository, `sizes` the total bytes.
    """

    since: int
    until: int
    packages: int
    same: int
    sizes: tuple[int, int]
    revisions: Mapping[str, tuple[str, str]]
    new: tuple[PackageChange, ...]
    gone: tuple[PackageChange, ...]
    bumped: tuple[PackageChange, ...]  # other version, newer or older
    rebuilt: tuple[PackageChange, ...]  # same version, other build
    resigned: tuple[PackageChange, ...]  # same build, other signature


def compare(old: Side, new: Side, causes: Causes = lambda _before, _after: None) -> Difference:
    """List the changes for a client that goes from `old` to `new`.

    Where `causes` does not know why a package was rebuilt, it is derived from the two indexes.
    """
    revisions = {
        repo: (old.revisions.get(repo, ""), new.revisions.get(repo, ""))
        for repo in sorted({*old.revisions, *new.revisions})
        if old.revisions.get(repo) != new.revisions.get(repo)
    }
    pairs = [(before, after, _kind(before, after)) for before, after in _pairs(old, new)]
    changed = {_split(after)[0] for _, after, kind in pairs if kind in ("bumped", "rebuilt")}
    lists: dict[str, list[PackageChange]] = {kind: [] for kind in KINDS}
    for before, after, kind in pairs:
        if kind != "same":
            known = causes(before, after) if kind in ("bumped", "rebuilt") else ()
            if known is None:
                known = _why(before, after, changed) if kind == "rebuilt" else ()
            why = tuple(known)
            lists[kind].append(_change(before, after, why))
    return Difference(
        since=old.number,
        until=new.number,
        packages=len(new.stanzas),
        same=sum(kind == "same" for _, _, kind in pairs),
        sizes=(_total(old.stanzas), _total(new.stanzas)),
        revisions=revisions,
        **{
            kind: tuple(sorted(changes, key=lambda change: (change.name, change.slot)))
            for kind, changes in lists.items()
        },
    )


def _pairs(old: Side, new: Side) -> list[tuple[Stanza, Stanza]]:
    """Pair the stanzas of both sides by package and slot; {} on a side without it.

    If one stanza of a package is left on each side, the package has changed its slot.
    """
    olds, news = _by_name(old.stanzas), _by_name(new.stanzas)
    pairs: list[tuple[Stanza, Stanza]] = []
    for name in {*olds, *news}:
        before, after = olds.get(name, {}), news.get(name, {})
        pairs += [(before.pop(slot), after.pop(slot)) for slot in {*before} & {*after}]
        if len(before) == len(after) == 1:
            pairs.append((before.popitem()[1], after.popitem()[1]))
        pairs += [(stanza, {}) for stanza in before.values()]
        pairs += [({}, stanza) for stanza in after.values()]
    return pairs


def _by_name(stanzas: Iterable[Stanza]) -> dict[str, dict[str, Stanza]]:
    """Stanzas by CATEGORY/PN, then by slot."""
    packages: dict[str, dict[str, Stanza]] = {}
    for stanza in stanzas:
        packages.setdefault(_split(stanza)[0], {})[_slot(stanza)] = stanza
    return packages


def _kind(before: Stanza, after: Stanza) -> str:
    if not before or not after:
        return "gone" if before else "new"
    if before["CPV"] != after["CPV"]:
        return "bumped"
    builds = [(s.get("BUILD_ID"), s.get("BUILD_TIME")) for s in (before, after)]
    if builds[0] != builds[1]:
        return "rebuilt"
    files = [(s.get("SIZE"), s.get("SHA1"), s.get("PATH")) for s in (before, after)]
    return "same" if files[0] == files[1] else "resigned"


def _change(before: Stanza, after: Stanza, why: tuple[str, ...]) -> PackageChange:
    either, both = after or before, bool(before and after)
    licences = before.get("LICENSE", ""), after.get("LICENSE", "")
    return PackageChange(
        name=_split(either)[0],
        slot=_slot(either),
        before=_split(before)[1] if before else "",
        after=_split(after)[1] if after else "",
        builds=(before.get("BUILD_ID", ""), after.get("BUILD_ID", "")),
        use=_delta(_use(before), _use(after)) if both else (),
        sonames=_delta(_sonames(before), _sonames(after)) if both else (),
        licence=licences if both and licences[0] != licences[1] else None,
        sizes=(int(before.get("SIZE", 0)), int(after.get("SIZE", 0))),
        why=why,
    )


def _why(before: Stanza, after: Stanza, changed: set[str]) -> tuple[str, ...]:
    """The causes of a rebuild, the nearest one first."""
    causes = []
    if use := _delta(_use(before), _use(after)):
        causes.append(f"USE {' '.join(use)}")
    old, new = _dependencies(before), _dependencies(after)
    if delta := _delta(old, new):
        causes.append(f"dependencies {' '.join(delta)}")
    if below := sorted(set(map(_dependency_name, new)) & changed - {_split(after)[0]}):
        causes.append(f"change of {' '.join(below)}")
    for key, cause in (
        ("COMMIT", f"new commit of {after.get('REPO')}"),
        ("ETC", "other /etc/portage"),
    ):
        if before.get(key) and after.get(key) and before[key] != after[key]:
            causes.append(cause)
    return tuple(causes)


def _dependencies(stanza: Stanza) -> set[str]:
    return {word for key in _DEPENDENCIES for word in stanza.get(key, "").split() if "/" in word}


def _delta(before: Iterable[str], after: Iterable[str]) -> tuple[str, ...]:
    """Additions with a +, then removals with a -."""
    old, new = set(before), set(after)
    return (
        *(f"+{word}" for word in sorted(new - old)),
        *(f"-{word}" for word in sorted(old - new)),
    )


def _use(stanza: Stanza) -> set[str]:
    """The enabled flags out of IUSE; the USE of a stanza has those of the profile as well."""
    iuse = {flag.lstrip("+-") for flag in stanza.get("IUSE", "").split()}
    return iuse & set(stanza.get("USE", "").split())


def _sonames(stanza: Stanza) -> set[str]:
    """The sonames that a package provides, for any ABI: `x86_64: liba.so.1 x86_32: ...`."""
    return {word for word in stanza.get("PROVIDES", "").split() if not word.endswith(":")}


def _split(stanza: Stanza) -> tuple[str, str]:
    """CATEGORY/PN and version of a stanza's CPV."""
    name = gpkg.parse_cpv(stanza["CPV"], stanza.get("BUILD_ID") or "1")
    return name.cp, name.version


def _dependency_name(word: str) -> str:
    """The CATEGORY/PN of a word in a dependency; "" for `||`, a blocker and the like."""
    atom = _ATOM.fullmatch(word)
    if atom is None:
        return ""
    return _VERSION.sub("", atom[2]) if atom[1] else atom[2]


def _slot(stanza: Stanza) -> str:
    return (stanza.get("SLOT") or "0").partition("/")[0]


def _total(stanzas: Iterable[Stanza]) -> int:
    return sum(int(stanza.get("SIZE", 0)) for stanza in stanzas)


def as_json(difference: Difference) -> dict[str, Any]:
    """Plain data for programs: the fields of a Difference as dicts, lists, strings and numbers."""
    return dict(json.loads(json.dumps(asdict(difference))))


def text(difference: Difference, name: str) -> str:
    """A report for people: a headline, the changed repositories, then a line for each package."""
    lists: dict[str, Sequence[PackageChange]] = {
        kind: changes for kind in KINDS if (changes := getattr(difference, kind))
    }
    counts = [f"{len(changes)} {kind}" for kind, changes in lists.items()]
    lines = [
        f"{name} generation {difference.since} -> {difference.until}: "
        + ", ".join(
            [words.count(difference.packages, "package"), *counts, f"{difference.same} unchanged"]
        )
        + f"; {_arrow(*map(words.size, difference.sizes))}"
    ]
    lines += [
        f"  {repo} {_arrow(old[:12] or 'none', new[:12] or 'none')}"
        for repo, (old, new) in difference.revisions.items()
    ]
    for kind, changes in lists.items():
        lines += ["", f"{kind} ({len(changes)})", *(f"  {_line(change)}" for change in changes)]
    return "\n".join(lines)


def _line(change: PackageChange) -> str:
    versions = [version for version in (change.before, change.after) if version]
    builds = [build for build in change.builds if build]
    slot = f":{change.slot}" if change.slot != "0" else ""
    parts = [f"{change.name}{slot} {_arrow(*versions)}"]
    rebuilt = len(set(versions)) == 1 and len(set(builds)) == 2
    if rebuilt:
        parts[0] += f" (build {_arrow(*builds)})"
    if change.why or rebuilt:
        parts.append(f"cause: {'; '.join(change.why)}" if change.why else "cause unknown")
    elif change.use:
        parts.append(f"USE {' '.join(change.use)}")
    if change.sonames:
        parts.append(f"sonames {' '.join(change.sonames)}")
    if change.licence:
        parts.append(f"licence {_arrow(*(each or 'none' for each in change.licence))}")
    if change.sizes[0] != change.sizes[1]:
        parts.append(_arrow(*(words.size(size) for size in change.sizes if size)))
    return ", ".join(parts)


def _arrow(*ends: str) -> str:
    return " -> ".join(dict.fromkeys(ends))
