"""The release gate: what must hold of a candidate before any client sees it.

First what its indexes and images tell, all of it at once; then the real thing: a fresh chroot from
the seed without any network, whose Portage installs every package of the set from the candidate,
signatures required.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError, CommandFailed
from tasks.portage import gpkg, inside
from tasks.portage.emerge import installed, reason, said_since
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox

PROGRAM = Path(inside.__file__).with_name("blockers.py")
INSIDE = "/run/binmill/gate"  # where the program and its question are mounted
CANDIDATE = "/run/binmill/candidate"
ASK = ("python3", "-I", f"{INSIDE}/{PROGRAM.name}", f"{INSIDE}/request.json")
# Portage's own COLLISION_IGNORE (make.globals): what it lets two packages have.
_SHARED = ("/lib/modules/*", "*.py[co]", "*$py.class")
_BLOCKING = ("RDEPEND", "PDEPEND", "IDEPEND")  # what counts when a binary package is installed
_LIBRARIES = ("lib", "lib32", "lib64", "libx32", "usr")
_ROWS = 5  # of each kind that a person is shown; the log has all of them

Stanza = Mapping[str, str]


@dataclass(frozen=True)
class Library:
    """A soname of one ABI category (`x86_64`); "" is whichever: of a plain file it is not known."""

    category: str
    soname: str


@dataclass(frozen=True)
class Collision:
    """Two packages (CPV) that install the same paths."""

    one: str
    other: str
    paths: tuple[str, ...]


def holes(planned: Iterable[Mapping[str, Any]], stanzas: Sequence[Stanza]) -> list[str]:
    """The packages of the plan (a set's) that are in no index: a client would not get them."""
    there = {(stanza["CPV"], stanza.get("BUILD_ID", "")) for stanza in stanzas}
    return [
        f"missing: {package['cpv']} (build {package['build_id']}) was planned and is in no index"
        for package in planned
        if (package["cpv"], str(package["build_id"])) not in there
    ]


def libraries(listed: str) -> Iterator[Library]:
    """What PROVIDES or REQUIRES says: `x86_64: liba.so.1 libb.so.2 x86_32: liba.so.1`."""
    category = ""
    for word in listed.split():
        if word.endswith(":"):
            category = word[:-1]
        else:
            yield Library(category, word)


def unmet(stanzas: Iterable[Stanza], seed: Iterable[Library]) -> list[str]:
    """The sonames that packages need (REQUIRES) and neither another one nor the seed provides."""
    stanzas = list(stanzas)
    there = set(seed)
    for stanza in stanzas:
        there.update(libraries(stanza.get("PROVIDES", "")))
    found = []
    for stanza in stanzas:
        for needed in libraries(stanza.get("REQUIRES", "")):
            if needed not in there and Library("", needed.soname) not in there:
                found.append(
                    f"soname: {stanza['CPV']} needs {needed.soname} ({needed.category}), "
                    "which nothing provides"
                )
    return found


def of_seed(seed: Path, stanzas: Iterable[Stanza]) -> set[Library]:
    """The sonames that an extracted stage provides.

    By its package database, without the packages that the set replaces (same name, same slot);
    where it has none, by the names of the files that a dynamic linker would look for.
    """
    replaced = {(_package(s["CPV"]), _slot(s.get("SLOT", ""))) for s in stanzas}
    entries = [e for e in seed.glob("var/db/pkg/*/*") if (e / "PF").is_file()]
    found: set[Library] = set()
    for entry in entries:
        name = _package(f"{entry.parent.name}/{entry.name}")
        if (entry / "PROVIDES").is_file() and (name, _slot(_line(entry / "SLOT"))) not in replaced:
            found.update(libraries(_line(entry / "PROVIDES")))
    if not entries:
        for top in _LIBRARIES:
            for _, _, names in os.walk(seed / top):
                found.update(Library("", name) for name in names if ".so" in name)
    return found


def collisions(files: Mapping[str, Iterable[str]]) -> list[Collision]:
    """The packages that install the same path, pair by pair; `files` has the paths of each CPV."""
    owners: dict[str, list[str]] = {}
    for cpv, paths in files.items():
        for path in paths:
            owners.setdefault(path, []).append(cpv)
    pairs: dict[tuple[str, str], list[str]] = {}
    for path, owning in owners.items():
        both = sorted(set(owning))
        if len(both) > 1 and not any(fnmatch.fnmatch(path, each) for each in _SHARED):
            for pair in itertools.combinations(both, 2):
                pairs.setdefault(pair, []).append(path)
    return [Collision(*pair, tuple(sorted(paths))) for pair, paths in sorted(pairs.items())]


def not_blocked(
    found: Sequence[Collision],
    stanzas: Sequence[Stanza],
    ask: Callable[[list[dict[str, str]]], list[bool]],
) -> list[Collision]:
    """The collisions of packages that may be installed together: neither blocks the other.

    `ask` tells of each question ({"blocker", "cpv", "slot"}) whether the blocker (an atom with
    `!`) is about that package; it is asked once, and only if there is something to ask.
    """
    by_cpv = {stanza["CPV"]: stanza for stanza in stanzas}
    questions: list[dict[str, str]] = []
    about: list[Collision] = []
    for collision in found:
        for one, other in ((collision.one, collision.other), (collision.other, collision.one)):
            words = " ".join(by_cpv[one].get(key, "") for key in _BLOCKING).split()
            for word in sorted({word for word in words if word.startswith("!") and "/" in word}):
                slot = by_cpv[other].get("SLOT") or "0"
                questions.append({"blocker": word, "cpv": other, "slot": slot})
                about.append(collision)
    answers = ask(questions) if questions else []
    blocked = {collision for collision, yes in zip(about, answers, strict=True) if yes}
    return [collision for collision in found if collision not in blocked]


def worded(collision: Collision) -> str:
    """One line about a collision."""
    more = len(collision.paths) - 1
    return f"collision: {collision.one} and {collision.other} both install {collision.paths[0]}" + (
        f" and {more} more" if more else ""
    )


def binrepos(views: Iterable[str]) -> str:
    """binrepos.conf of the gate's chroot: each view of the candidate as it is mounted there."""
    return "".join(
        f"\n[candidate-{number}]\npriority = 9999\nsync-uri = file://{CANDIDATE}/{view}\n"
        "verify-signature = true\n"
        for number, view in enumerate(views)
    )


def command(packages: Sequence[str], cpvs: Iterable[str]) -> list[str]:
    """The emerge(1) call: all of the set by name, and what those that it is for ask for.

    --emptytree, since what the seed has would hide that a package of the set is missing.
    """
    return [
        "emerge",
        "--verbose",
        "--color=n",
        "--nospinner",
        "--getbinpkg",
        "--usepkgonly",
        "--emptytree",
        "--with-bdeps=n",
        f"--jobs={os.cpu_count()}",
        "@world",
        *sorted(packages),
        *(f"={cpv}" for cpv in sorted(cpvs)),
    ]


def install(room: Sandbox, packages: Sequence[str], cpvs: Sequence[str], log: Path) -> list[str]:
    """Install the whole set in `room`; returns what is wrong, one line each.

    `packages` are what a client would name, `cpvs` the whole set.
    """
    start = log.stat().st_size if log.exists() else 0
    try:
        sandbox.run(room, command(packages, cpvs), log=log, timeout=4 * 3600)
    except CommandFailed as failed:
        return [f"install: {reason(said_since(log, start)) or failed.message}"]
    done = {f"{entry.parent.name}/{entry.name}" for entry in installed(room.upper)}
    return [f"install: {cpv} was not installed" for cpv in sorted(set(cpvs) - done)]


def blockers(room: Sandbox, folder: Path, questions: list[dict[str, str]]) -> list[bool]:
    """Ask the chroot's own Portage which atoms are about which packages; `folder` is INSIDE."""
    (folder / "request.json").write_text(json.dumps(questions))
    printed = sandbox.run(room, ASK, timeout=600).stdout
    try:
        answers = json.loads(printed)
        if not all(isinstance(a, bool) for a in answers) or len(answers) != len(questions):
            raise ValueError
    except (ValueError, TypeError, RecursionError) as error:
        raise BinmillError(
            "the chroot's Portage gave no answer about blockers that can be read",
            "look at tasks/portage/inside/blockers.py",
        ) from error
    return list(answers)


def refusal(name: str, number: int, wrong: Sequence[str], log: Path) -> BinmillError:
    """What stops a candidate, as one error; the log gets every line of it."""
    with log.open("a", encoding="utf-8") as out:
        out.writelines(f"gate: {line}\n" for line in wrong)
    shown: list[str] = []
    for kind in dict.fromkeys(line.partition(":")[0] for line in wrong):
        those = [line for line in wrong if line.startswith(f"{kind}:")]
        shown += those[:_ROWS]
        if len(those) > _ROWS:
            shown.append(f"{kind}: and {len(those) - _ROWS} more")
    count = f"{len(wrong)} reason{'s' if len(wrong) > 1 else ''}"
    lines = "".join(f"\n  {line}" for line in shown)
    return BinmillError(
        f"candidate {number} of {name} is not published, for {count}:{lines}",
        f"read {log}; the candidate is kept for a look, and what was current stays current",
    )


def _package(cpv: str) -> str:
    category, _, pf = cpv.partition("/")
    name = gpkg.parse(category, pf, "1")
    return f"{name.category}/{name.package}"


def _slot(slot: str) -> str:
    return (slot or "0").partition("/")[0]


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""
