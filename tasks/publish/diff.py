"""What differs between two generations, in a person's words. Pure: two parsed indexes in.

An index tells of each package its version, build, USE, dependencies, sonames, licence and size
(portage.dbapi.bintree); what a generation says of itself adds the commits it was built from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks.portage import gpkg

# CATEGORY/PN of a dependency (PMS 8.3): with an operator, a version stands behind it
_ATOM = re.compile(
    r"([<>=~]*)([A-Za-z0-9_][A-Za-z0-9+_.-]*/[A-Za-z0-9_][A-Za-z0-9+_.*-]*)(?:[:\[].*)?"
)
_VERSION = re.compile(r"-[0-9][A-Za-z0-9._*]*(?:-r[0-9]+)?$")
_DEPENDENCIES = ("DEPEND", "BDEPEND", "RDEPEND", "PDEPEND", "IDEPEND")
_KINDS = ("new", "gone", "bumped", "rebuilt", "resigned")


@dataclass(frozen=True)
class Released:
    """A generation as it is compared: its number, its packages, the commit of each repository.

    Packages are stanzas of its indexes. COMMIT (of its own repository) and ETC (the id of its
    /etc/portage) say what each was built from, where that is known.
    """

    number: int
    stanzas: Sequence[Mapping[str, str]]
    revisions: Mapping[str, str]


@dataclass(frozen=True)
class Package:
    """A package (CATEGORY/PN) in one slot, then and now. Sizes in bytes, 0 where it was not.

    `before` and `after` are versions, "" where it was not; `builds` their build numbers. `use` and
    `sonames` have what came with a + and what went with a -; `licence` is (then, now) if another.
    `why` says what a build with the same version was made again for.
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
    """Each package that is not the same is in exactly one list, sorted by name.

    `revisions` has (then, now) of each repository that moved; `sizes` are of the whole, in bytes.
    """

    since: int
    until: int
    packages: int
    same: int
    sizes: tuple[int, int]
    revisions: Mapping[str, tuple[str, str]]
    new: tuple[Package, ...]
    gone: tuple[Package, ...]
    bumped: tuple[Package, ...]  # another version, newer or older
    rebuilt: tuple[Package, ...]  # the same version, built again
    resigned: tuple[Package, ...]  # the same build under another signature


def compare(old: Released, new: Released) -> Difference:
    """What a client of `old` meets when it is given `new`."""
    revisions = {
        repo: (old.revisions.get(repo, ""), new.revisions.get(repo, ""))
        for repo in sorted({*old.revisions, *new.revisions})
        if old.revisions.get(repo) != new.revisions.get(repo)
    }
    lists: dict[str, list[Package]] = {kind: [] for kind in _KINDS}
    pairs = _paired(old.stanzas, new.stanzas)
    changed = {_split(b)[0] for a, b in pairs if a and b and _kind(a, b) in ("bumped", "rebuilt")}
    same = 0
    for before, after in pairs:
        kind = _kind(before, after)
        if kind == "same":
            same += 1
        else:
            again = kind == "rebuilt"
            why = _why(before, after, changed) if again else ()
            lists[kind].append(_package(before, after, why))
    told: dict[str, Any] = {
        kind: tuple(sorted(found, key=lambda p: (p.name, p.slot))) for kind, found in lists.items()
    }
    sizes = _total(old.stanzas), _total(new.stanzas)
    return Difference(old.number, new.number, len(new.stanzas), same, sizes, revisions, **told)


def _paired(
    old: Iterable[Mapping[str, str]], new: Iterable[Mapping[str, str]]
) -> list[tuple[Mapping[str, str], Mapping[str, str]]]:
    """What was and what is, by package and slot; {} for what is not there.

    What is left of a package on both sides, one each, has changed its slot.
    """
    sides: list[dict[str, dict[str, Mapping[str, str]]]] = [{}, {}]
    for side, stanzas in zip(sides, (old, new), strict=True):
        for stanza in stanzas:
            side.setdefault(_split(stanza)[0], {})[_slot(stanza)] = stanza
    pairs: list[tuple[Mapping[str, str], Mapping[str, str]]] = []
    for name in {*sides[0], *sides[1]}:
        was, now = (dict(side.get(name, {})) for side in sides)
        pairs += [(was.pop(slot), now.pop(slot)) for slot in {*was} & {*now}]
        if len(was) == len(now) == 1:
            pairs.append((was.popitem()[1], now.popitem()[1]))
        pairs += [(stanza, {}) for stanza in was.values()]
        pairs += [({}, stanza) for stanza in now.values()]
    return pairs


def _kind(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    if not before or not after:
        return "gone" if before else "new"
    if before["CPV"] != after["CPV"]:
        return "bumped"
    builds = [(s.get("BUILD_ID"), s.get("BUILD_TIME")) for s in (before, after)]
    if builds[0] != builds[1]:
        return "rebuilt"
    files = [(s.get("SIZE"), s.get("SHA1"), s.get("PATH")) for s in (before, after)]
    return "same" if files[0] == files[1] else "resigned"


def _package(before: Mapping[str, str], after: Mapping[str, str], why: tuple[str, ...]) -> Package:
    either = after or before
    was, now = before.get("LICENSE", ""), after.get("LICENSE", "")
    return Package(
        name=_split(either)[0],
        slot=_slot(either),
        before=_split(before)[1] if before else "",
        after=_split(after)[1] if after else "",
        builds=(before.get("BUILD_ID", ""), after.get("BUILD_ID", "")),
        use=_signed(_use(before), _use(after)) if before and after else (),
        sonames=_signed(_sonames(before), _sonames(after)) if before and after else (),
        licence=(was, now) if before and after and was != now else None,
        sizes=(int(before.get("SIZE", 0)), int(after.get("SIZE", 0))),
        why=why,
    )


def _why(
    before: Mapping[str, str],
    after: Mapping[str, str],
    changed: set[str],
) -> tuple[str, ...]:
    """What a package was built again for, the nearest cause first."""
    causes = []
    if use := _signed(_use(before), _use(after)):
        causes.append(f"USE {' '.join(use)}")
    was, now = (
        {w for key in _DEPENDENCIES for w in s.get(key, "").split() if "/" in w}
        for s in (before, after)
    )
    if was != now:
        causes.append(f"its dependencies: {' '.join(_signed(was, now))}")
    if below := sorted(set(map(_needed, now)) & changed - {_split(after)[0]}):
        causes.append(f"changed below it: {' '.join(below)}")
    for key, cause in (("COMMIT", f"the commit of {after.get('REPO')}"), ("ETC", "the config")):
        if before.get(key) and after.get(key) and before[key] != after[key]:
            causes.append(cause)
    return tuple(causes) or ("built again with the same words",)


def _signed(before: Iterable[str], after: Iterable[str]) -> tuple[str, ...]:
    was, now = set(before), set(after)
    return (
        *(f"+{word}" for word in sorted(now - was)),
        *(f"-{word}" for word in sorted(was - now)),
    )


def _use(stanza: Mapping[str, str]) -> set[str]:
    """The flags that the package knows (IUSE) and has on: USE holds the profile's as well."""
    known = {flag.lstrip("+-") for flag in stanza.get("IUSE", "").split()}
    return known & set(stanza.get("USE", "").split())


def _sonames(stanza: Mapping[str, str]) -> set[str]:
    """The sonames that it provides, whatever for: `x86_64: liba.so.1 libb.so.2 x86_32: ...`."""
    return {word for word in stanza.get("PROVIDES", "").split() if not word.endswith(":")}


def _split(stanza: Mapping[str, str]) -> tuple[str, str]:
    """CATEGORY/PN and version of a stanza's CPV."""
    category, _, pf = stanza["CPV"].partition("/")
    name = gpkg.parse(category, pf, stanza.get("BUILD_ID") or "1")
    return f"{name.category}/{name.package}", name.version


def _needed(word: str) -> str:
    """The package that a word of a dependency is about; "" if about none (`||`, a blocker)."""
    found = _ATOM.fullmatch(word)
    if found is None:
        return ""
    return _VERSION.sub("", found[2]) if found[1] else found[2]


def _slot(stanza: Mapping[str, str]) -> str:
    return (stanza.get("SLOT") or "0").partition("/")[0]


def _total(stanzas: Iterable[Mapping[str, str]]) -> int:
    return sum(int(stanza.get("SIZE", 0)) for stanza in stanzas)


def as_json(difference: Difference) -> dict[str, Any]:
    """For a program: the fields of a Difference as dicts, lists, strings and numbers."""
    return dict(json.loads(json.dumps(asdict(difference))))


def text(difference: Difference, name: str) -> str:
    """For a person: a headline, what moved, then a line for each package, list by list."""
    counts = [f"{len(found)} {kind}" for kind in _KINDS if (found := getattr(difference, kind))]
    lines = [
        f"{name} generation {difference.since} -> {difference.until}: "
        + ", ".join([f"{difference.packages} packages", *counts, f"{difference.same} the same"])
        + f"; {_arrow(*map(_size, difference.sizes))}"
    ]
    lines += [
        f"  {repo} {_arrow(was[:12] or 'none', now[:12] or 'none')}"
        for repo, (was, now) in difference.revisions.items()
    ]
    for kind in _KINDS:
        those: Sequence[Package] = getattr(difference, kind)
        if those:
            lines += ["", f"{kind} ({len(those)})", *(f"  {_told(each)}" for each in those)]
    return "\n".join(lines)


def _told(package: Package) -> str:
    versions = [v for v in dict.fromkeys((package.before, package.after)) if v]
    builds = [b for b in dict.fromkeys(package.builds) if b]
    head = f"{package.name} {' -> '.join(versions)}"
    if package.slot != "0":
        head = f"{package.name}:{package.slot} {' -> '.join(versions)}"
    if len(versions) == 1 and len(builds) == 2:
        head += f" (build {_arrow(*builds)})"
    told = [f"because of {'; '.join(package.why)}"] if package.why else []
    if package.use and not package.why:
        told.append(f"USE {' '.join(package.use)}")
    if package.sonames:
        told.append(f"sonames {' '.join(package.sonames)}")
    if package.licence:
        told.append(f"licence {_arrow(*(each or 'none' for each in package.licence))}")
    was, now = package.sizes
    if was != now:
        told.append(_arrow(*(_size(size) for size in (was, now) if size)))
    return ", ".join([head, *told])


def _arrow(*ends: str) -> str:
    return " -> ".join(dict.fromkeys(ends))


def _size(count: int) -> str:
    power = min(3, max(0, len(str(count)) - 1) // 3)
    amount = count / 1000**power
    return f"{amount:.{1 if power > 1 else 0}f} {('B', 'kB', 'MB', 'GB')[power]}"
