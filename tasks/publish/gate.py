"""The release gate: the conditions that a candidate must meet before any client sees it.

First it checks the indexes and images, and lists all violations at once. Then the Portage of a
fresh chroot from the seed, without network, installs every package of the set from the candidate,
signatures required; or it upgrades the candidate before (tasks.publish.upgrade).
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tasks import messages
from tasks.domain import Package
from tasks.errors import BinmillError, CommandFailed
from tasks.messages import Field
from tasks.portage import gpkg, inside, vdb
from tasks.portage.emerge import first_failure, output_since
from tasks.publish import client
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox

PROGRAM = Path(inside.__file__).with_name("blockers.py")
INSIDE = "/run/binmill/gate"  # where the program and its request are mounted
CANDIDATE = "/run/binmill/candidate"
ASK = ("python3", "-I", f"{INSIDE}/{PROGRAM.name}", f"{INSIDE}/request.json")
# Portage's default (make.globals), whatever the profile says: without it, a package takes a file of
# another one, and the file is lost when that one is upgraded.
FEATURES = ("protect-owned",)
# Portage's own COLLISION_IGNORE (make.globals): files that two packages may share.
_SHARED = ("/lib/modules/*", "*.py[co]", "*$py.class")
_BLOCKING = ("RDEPEND", "PDEPEND", "IDEPEND")  # those that count for a binary package
_LIBRARIES = ("lib", "lib32", "lib64", "libx32", "usr")
_ROWS = 5  # lines of each kind in the message; the log has all of them

Stanza = Mapping[str, str]


@dataclass(frozen=True)
class Library:
    """A soname and its ABI category (`x86_64`); "" matches any: a plain file does not show it."""

    category: str
    soname: str


@dataclass(frozen=True)
class Violation:
    """A reason to refuse a candidate; subclasses have the fields, `code` names the sentence."""

    code: ClassVar[str] = ""

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields of the sentence."""
        return vars(self)

    def __str__(self) -> str:
        return messages.sentence(self.code, self.fields)


@dataclass(frozen=True)
class MissingPackage(Violation):
    """A package of the set is in no index."""

    code: ClassVar[str] = "gate-missing-package"
    cpv: str
    build_id: int


@dataclass(frozen=True)
class ForbiddenPackage(Violation):
    """A package is in the view of a group that may not have it."""

    code: ClassVar[str] = "gate-forbidden-package"
    cpv: str
    group: str


@dataclass(frozen=True)
class MissingSoname(Violation):
    """A package needs a soname that neither a package nor the seed provides."""

    code: ClassVar[str] = "gate-missing-soname"
    cpv: str
    soname: str
    category: str


@dataclass(frozen=True)
class Collision(Violation):
    """Two packages (CPV) install the same paths."""

    code: ClassVar[str] = "gate-collision"
    one: str
    other: str
    paths: tuple[str, ...]

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields of the sentence, with the first path as an example."""
        return {**vars(self), "first": self.paths[0]}


@dataclass(frozen=True)
class InstallFailed(Violation):
    """Portage failed to install the set; `cause` is its own explanation."""

    code: ClassVar[str] = "gate-install-failed"
    cause: str


@dataclass(frozen=True)
class NotInstalled(Violation):
    """Portage succeeded without installing this package of the set."""

    code: ClassVar[str] = "gate-not-installed"
    cpv: str


def missing_packages(planned: Iterable[Package], stanzas: Sequence[Stanza]) -> list[Violation]:
    """List the packages of a set that are in no index, so that clients would miss them."""
    indexed = {(stanza["CPV"], stanza.get("BUILD_ID", "")) for stanza in stanzas}
    return [
        MissingPackage(package.cpv, package.build_id)
        for package in planned
        if (package.cpv, str(package.build_id)) not in indexed
    ]


def libraries(sonames: str) -> Iterator[Library]:
    """Parse PROVIDES or REQUIRES: `x86_64: liba.so.1 libb.so.2 x86_32: liba.so.1`."""
    category = ""
    for word in sonames.split():
        if word.endswith(":"):
            category = word[:-1]
        else:
            yield Library(category, word)


def missing_sonames(stanzas: Iterable[Stanza], seed: Iterable[Library]) -> list[Violation]:
    """List the sonames in REQUIRES that neither a package nor the seed provides."""
    stanzas = list(stanzas)
    provided = set(seed)
    for stanza in stanzas:
        provided.update(libraries(stanza.get("PROVIDES", "")))
    return [
        MissingSoname(stanza["CPV"], library.soname, library.category)
        for stanza in stanzas
        for library in libraries(stanza.get("REQUIRES", ""))
        if library not in provided and Library("", library.soname) not in provided
    ]


def seed_libraries(seed: Path, stanzas: Iterable[Stanza]) -> set[Library]:
    """The sonames that an extracted stage provides.

    They come from its package database, without the packages that the set replaces (same name and
    slot). For a stage without a database, they are the names of files like shared libraries.
    """
    replaced = {(gpkg.parse_cpv(s["CPV"]).cp, _slot(s.get("SLOT", ""))) for s in stanzas}
    entries = [e for e in seed.glob(f"{vdb.DATABASE}/*/*") if (e / "PF").is_file()]
    provided: set[Library] = set()
    for entry in entries:
        name = gpkg.parse_cpv(f"{entry.parent.name}/{entry.name}").cp
        if (entry / "PROVIDES").is_file() and (name, _slot(_line(entry / "SLOT"))) not in replaced:
            provided.update(libraries(_line(entry / "PROVIDES")))
    if not entries:
        for top in _LIBRARIES:
            for _, _, names in os.walk(seed / top):
                provided.update(Library("", name) for name in names if ".so" in name)
    return provided


def collisions(files: Mapping[str, Iterable[str]]) -> list[Collision]:
    """List the pairs of packages that install the same path; `files` has the paths of each CPV."""
    owners: dict[str, list[str]] = {}
    for cpv, paths in files.items():
        for path in paths:
            owners.setdefault(path, []).append(cpv)
    pairs: dict[tuple[str, str], list[str]] = {}
    for path, cpvs in owners.items():
        if len(set(cpvs)) > 1 and not any(fnmatch.fnmatch(path, each) for each in _SHARED):
            for pair in itertools.combinations(sorted(set(cpvs)), 2):
                pairs.setdefault(pair, []).append(path)
    return [Collision(*pair, tuple(sorted(paths))) for pair, paths in sorted(pairs.items())]


def without_blockers(
    candidates: Sequence[Collision],
    stanzas: Sequence[Stanza],
    ask: Callable[[list[dict[str, str]]], list[bool]],
) -> list[Collision]:
    """The collisions of packages that may be installed together: neither blocks the other.

    `ask` answers for each question ({"blocker", "cpv", "slot"}) whether the blocker (an atom with
    `!`) matches that package. It is called at most once, with all questions.
    """
    by_cpv = {stanza["CPV"]: stanza for stanza in stanzas}
    questions: list[dict[str, str]] = []
    about: list[Collision] = []
    for collision in candidates:
        for one, other in ((collision.one, collision.other), (collision.other, collision.one)):
            words = " ".join(by_cpv[one].get(key, "") for key in _BLOCKING).split()
            for word in sorted({word for word in words if word.startswith("!") and "/" in word}):
                slot = by_cpv[other].get("SLOT") or "0"
                questions.append({"blocker": word, "cpv": other, "slot": slot})
                about.append(collision)
    answers = ask(questions) if questions else []
    blocked = {collision for collision, yes in zip(about, answers, strict=True) if yes}
    return [collision for collision in candidates if collision not in blocked]


def binrepos(views: Iterable[str]) -> str:
    """binrepos.conf of the gate's chroot: each view of the candidate, as mounted there."""
    return "".join(
        f"\n[candidate-{number}]\npriority = 9999\nsync-uri = file://{CANDIDATE}/{view}\n"
        "verify-signature = true\n"
        for number, view in enumerate(views)
    )


def command(packages: Sequence[str], cpvs: Iterable[str]) -> list[str]:
    """The emerge(1) call: what a client would name, and every package of the set.

    With --emptytree: a package of the seed would hide that one of the set is missing. With
    --oneshot: no client names them all, so the world file of the install root must not.
    """
    words = client.command([*packages, *(f"={cpv}" for cpv in cpvs)])
    return [words[0], "--emptytree", "--oneshot", *words[1:]]


def install(
    chroot: Sandbox, packages: Sequence[str], cpvs: Sequence[str], log: Path
) -> list[Violation]:
    """Install the whole set in a fresh chroot; returns the violations.

    `packages` are those that a client would name, `cpvs` the whole set.
    """
    start = log.stat().st_size if log.exists() else 0
    try:
        sandbox.run(chroot, command(packages, cpvs), log=log, timeout=4 * 3600)
    except CommandFailed as error:
        return [InstallFailed(first_failure(output_since(log, start)) or error.message)]
    present = {f"{entry.parent.name}/{entry.name}" for entry in vdb.entries(chroot.upper)}
    return [NotInstalled(cpv) for cpv in sorted(set(cpvs) - present)]


def match_blockers(chroot: Sandbox, folder: Path, questions: list[dict[str, str]]) -> list[bool]:
    """Ask the chroot's own Portage which blockers match; it sees `folder` at INSIDE."""
    (folder / "request.json").write_text(json.dumps(questions))
    output = sandbox.run(chroot, ASK, timeout=600).stdout
    try:
        answers = json.loads(output)
        if not all(isinstance(a, bool) for a in answers) or len(answers) != len(questions):
            raise ValueError
    except (ValueError, TypeError, RecursionError) as error:
        raise BinmillError("gate-answer-unreadable") from error
    return list(answers)


def refusal(name: str, number: int, violations: Sequence[Violation], log: Path) -> BinmillError:
    """One error that shows some violations of each kind; the log gets all of them."""
    with log.open("a", encoding="utf-8") as out:
        out.writelines(f"gate: {violation}\n" for violation in violations)
    kinds: dict[str, list[str]] = {}
    for violation in violations:
        kinds.setdefault(violation.code, []).append(str(violation))
    excerpt: list[str] = []
    for lines in kinds.values():
        excerpt += lines[:_ROWS]
        if len(lines) > _ROWS:
            excerpt.append(f"{lines[0].partition(':')[0]}: and {len(lines) - _ROWS} more")
    return BinmillError(
        "candidate-refused",
        candidate=number,
        chroot=name,
        violations=list(map(str, violations)),
        shown=excerpt,
        log=log,
    )


def _slot(slot: str) -> str:
    return (slot or "0").partition("/")[0]


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""
