"""Upgrade an install root to a generation, as a client does, and judge what the upgrade does.

Trees are those that layers show together: `before` the install root, `after` with the upgrade.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from tasks.errors import CommandFailed, NotTrusted
from tasks.messages import Field
from tasks.portage import gpkg, vdb
from tasks.portage.emerge import first_failure, output_since
from tasks.publish import client
from tasks.publish.gate import InstallFailed, NotInstalled, Stanza, Violation
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox

_PRESERVED = "var/lib/portage/preserved_libs_registry"
_PRESERVED_LIMIT = 16 << 20  # bytes
_SECONDS = 4 * 3600
# Portage's report of a collision (dblink.treewalk): owners with their paths, then the package.
_OWNER = re.compile(r" \* ([\w+.-]+/[\w+.-]+)(?::\S*)?\s*")
_PATH = re.compile(r" \* \t(/.*)")
_NOT_MERGED = re.compile(r" \* Package '([^']+)' NOT merged due to\b")
_BLOCKS = re.compile(r"\[blocks B\s*\] (.+)")


class Tree(Protocol):
    """A tree of files that can be asked for one; paths are relative to its root."""

    def find(self, path: str) -> Path | None:
        """The place of a file on the host; None if there is none."""
        ...

    def resolve(self, path: str) -> str:
        """The same path without links in its directories."""
        ...


@dataclass(frozen=True)
class UpgradeCollision(Violation):
    """A package was not merged, as `owner`, an installed one, has these paths."""

    code: ClassVar[str] = "gate-upgrade-collision"
    cpv: str
    owner: str
    paths: tuple[str, ...]

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields of the sentence, with the first path as an example."""
        return {**vars(self), "first": self.paths[0]}


@dataclass(frozen=True)
class Blocked(Violation):
    """A package may not be installed beside another one; `block` is Portage's line about it."""

    code: ClassVar[str] = "gate-blocked"
    block: str


@dataclass(frozen=True)
class FileLost(Violation):
    """A package of the set owns paths that the upgrade has deleted."""

    code: ClassVar[str] = "gate-file-lost"
    cpv: str
    paths: tuple[str, ...]

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields of the sentence, with the first path as an example."""
        return {**vars(self), "first": self.paths[0]}


@dataclass(frozen=True)
class LibraryLeft(Violation):
    """A library of an old build is kept, as something installed still needs its soname."""

    code: ClassVar[str] = "gate-library-left"
    path: str


def command(packages: Sequence[str], cpvs: Collection[str]) -> list[str]:
    """The emerge(1) call of a client that updates, and every package of the set by name."""
    words = client.command([*packages, *(f"={cpv}" for cpv in cpvs)])
    return [words[0], "--oneshot", *client.UPDATE, *words[1:]]


def changed_files(
    stanzas: Sequence[Stanza], packages: Mapping[str, str], before: Tree
) -> list[str]:
    """The packages (CPV) whose build is installed from another file, such as an older signature.

    `packages` have the SHA-512 of the files that the root was made from.
    """
    return [
        stanza["CPV"]
        for stanza in stanzas
        if packages.get(stanza["CPV"]) != stanza.get("SHA512") and has_build(before, stanza)
    ]


def same_slots(stanzas: Sequence[Stanza], installed: Iterable[str], tree: Tree) -> list[str]:
    """The packages (CPV) of an index with name and slot of one that is installed."""
    slots = set()
    for cpv in installed:
        place = tree.find(f"{vdb.DATABASE}/{cpv}/SLOT")
        if place is not None:
            slots.add((gpkg.parse_cpv(cpv).cp, vdb.value(place.parent, "SLOT").partition("/")[0]))
    return [
        stanza["CPV"]
        for stanza in stanzas
        if (gpkg.parse_cpv(stanza["CPV"]).cp, stanza.get("SLOT", "0").partition("/")[0]) in slots
    ]


def install(
    root: Sandbox, packages: Sequence[str], cpvs: Sequence[str], again: Sequence[str], log: Path
) -> list[Violation]:
    """Upgrade an install root to a generation; returns the violations that Portage reports.

    `packages` are those that a client would name, `cpvs` those to upgrade to. Those in `again` are
    installed even if their build is there already.
    """
    violations = _emerge(root, command(packages, cpvs), log)
    if again and not violations:
        words = client.command([f"={cpv}" for cpv in again])
        words.remove("@world")
        violations = _emerge(root, [words[0], "--oneshot", "--nodeps", *words[1:]], log)
    return violations


def remove(root: Sandbox, cpvs: Sequence[str], log: Path) -> None:
    """Remove packages that left the set, except those that something else still needs."""
    atoms = [f"={cpv}" for cpv in cpvs]
    words = ["emerge", "--color=n", "--nospinner", "--with-bdeps=n", "--depclean", *atoms]
    sandbox.run(root, words, log=log, timeout=_SECONDS, check=False)


def judge(stanzas: Sequence[Stanza], before: Tree, after: Tree) -> list[Violation]:
    """List packages of the set in another build than the candidate's, lost files and libraries."""
    violations: list[Violation] = [
        NotInstalled(stanza["CPV"]) for stanza in stanzas if not has_build(after, stanza)
    ]
    for stanza in stanzas:
        if paths := _lost(stanza["CPV"], before, after):
            violations.append(FileLost(stanza["CPV"], paths))
    left = preserved_libraries(after) - preserved_libraries(before)
    return [*violations, *map(LibraryLeft, sorted(left))]


def collisions(output: str) -> list[UpgradeCollision]:
    """Read the collisions with installed packages from emerge's output."""
    every: dict[UpgradeCollision, None] = {}
    owners: dict[str, list[str]] = {}
    owner = ""
    for line in output.splitlines():
        if line.startswith(" * Detected file collision"):
            owners, owner = {}, ""
        elif match := _NOT_MERGED.match(line):
            for name, paths in owners.items():
                every[UpgradeCollision(match[1], name, tuple(paths))] = None
            owners, owner = {}, ""
        elif match := _OWNER.fullmatch(line):
            owner = match[1]
        elif owner and (match := _PATH.fullmatch(line)):
            owners.setdefault(owner, []).append(match[1])
    return list(every)


def blocks(output: str) -> list[Blocked]:
    """Read the blocks that emerge could not resolve from its output."""
    return list(dict.fromkeys(Blocked(block) for block in _BLOCKS.findall(output)))


def preserved_libraries(tree: Tree) -> set[str]:
    """The paths in Portage's registry of preserved libraries.

    Raises NotTrusted if that is none (portage.util._dyn_libs.PreservedLibsRegistry).
    """
    place = tree.find(tree.resolve(_PRESERVED))
    if place is None:
        return set()
    try:
        paths = [
            path for _, _, each in json.loads(_content(place) or b"{}").values() for path in each
        ]
        if not all(isinstance(path, str) for path in paths):
            raise ValueError
    except (OSError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise NotTrusted("preserved-libraries-unreadable") from error
    return set(paths)


def _content(path: Path) -> bytes:
    """A file that a chroot has written; raises ValueError if it is none, or too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(_PRESERVED_LIMIT + 1)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or len(content) > _PRESERVED_LIMIT:
            raise ValueError
    return content


def is_installed(tree: Tree, cpv: str) -> bool:
    """True if the package database of a tree has that package."""
    return tree.find(f"{vdb.DATABASE}/{cpv}/PF") is not None


def has_build(tree: Tree, stanza: Stanza) -> bool:
    """True if that very build of a package is installed."""
    for key in ("BUILD_ID", "BUILD_TIME"):
        place = tree.find(f"{vdb.DATABASE}/{stanza['CPV']}/{key}")
        if place is None or vdb.value(place.parent, key) != stanza.get(key):
            return False
    return True


def _lost(cpv: str, before: Tree, after: Tree) -> tuple[str, ...]:
    """The paths of a package that were there before the upgrade, and are not any more.

    One that its package deletes itself when it is installed was not there before.
    """
    contents = after.find(f"{vdb.DATABASE}/{cpv}/CONTENTS")
    if contents is None:
        return ()
    try:
        return tuple(sorted(_missing(vdb.contents(contents.parent), before, after)))
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise NotTrusted("layer-path-too-long", package=cpv) from error


def _missing(paths: Iterable[str], before: Tree, after: Tree) -> Iterator[str]:
    for path in paths:
        if after.find(after.resolve(path)) is None and before.find(before.resolve(path)):
            yield path


def _emerge(root: Sandbox, words: Sequence[str], log: Path) -> list[Violation]:
    start = log.stat().st_size if log.exists() else 0
    try:
        sandbox.run(root, words, log=log, timeout=_SECONDS)
    except CommandFailed as error:
        output = output_since(log, start)
        violations = [*collisions(output), *blocks(output)]
        return violations or [InstallFailed(first_failure(output) or error.message)]
    return []
