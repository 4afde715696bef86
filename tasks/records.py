"""Records: what each finished task leaves, under state/records/, small and deterministic.

A record is a frozen dataclass. In the graph, a task names the records that it reads by typed keys
(`SEED("base")`); its function gets `Inputs`, and reading a record that is not declared raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter

from tasks import lock as lock_file
from tasks.domain import Package
from tasks.errors import Stale
from tasks.layout import Layout
from tasks.lock import Lock
from tasks.system.files import write_atomic

R = TypeVar("R")
# What version 0.1 called `touched`; its records stay valid.
Modified = Annotated[tuple[str, ...], Field(alias="touched")]


@dataclass(frozen=True)
class SnapshotRecord:
    """The newest frozen day: its tag (YYYYMMDD), its commit, and the archive that it came from.

    `timestamp` is in epoch seconds, `sha512` of the archive, `signer` a primary fingerprint.
    """

    tag: str
    commit: str
    timestamp: int
    sha512: str
    signer: str


@dataclass(frozen=True)
class LockRecord:
    """Nothing: config.lock itself is the record of `lock`."""


@dataclass(frozen=True)
class TreeRecord:
    """The exported commit of the locked tree; `timestamp` of its snapshot in epoch seconds."""

    tag: str
    commit: str
    timestamp: int


@dataclass(frozen=True)
class OverlayRecord:
    """The exported commit of an overlay."""

    commit: str


@dataclass(frozen=True)
class SeedRecord:
    """An extracted stage: the path of its tarball, as it is pinned, and its SHA-512."""

    path: str
    sha512: str


@dataclass(frozen=True)
class ChrootRecord:
    """The layers of a chroot, the topmost first, as paths below state/.

    `modified` names the chroots of its lineage that a person has changed by hand.
    """

    layers: tuple[str, ...]
    modified: Modified = ()

    def own_layer(self, name: str) -> str:
        """The layer that the task of chroot `name` made, below any manual changes."""
        return self.unmodified(name)[0]

    def unmodified(self, name: str) -> tuple[str, ...]:
        """The layers of chroot `name` without the manual changes made in it."""
        return self.layers[1:] if name in self.modified else self.layers


@dataclass(frozen=True)
class EtcRecord:
    """A generated /etc/portage: its folder below state/, and the names of its files."""

    path: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Mount:
    """A mount as a command inside sees it."""

    at: str
    type: str
    options: str


@dataclass(frozen=True)
class MountRecord:
    """The mount table and the environment (NAME=VALUE) inside a chroot, each sorted."""

    mounts: tuple[Mount, ...]
    environment: tuple[str, ...]


@dataclass(frozen=True)
class CheckRecord:
    """A digest of the settings that the chroot's Portage has accepted."""

    asked: str


@dataclass(frozen=True)
class PlanRecord:
    """A plan: the digest of its JSON, the number of its packages, its path below state/.

    `commits` has the commit of each repository that it was resolved with, by Portage's names.
    """

    plan: str
    packages: int
    path: str
    commits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BinpkgsRecord:
    """A collected set: its id, a digest of its packages, which are sorted by name and build."""

    set: str
    packages: tuple[Package, ...]
    modified: Modified = ()


@dataclass(frozen=True)
class CandidateRecord:
    """A signed generation that no client sees; `views` counts the packages of each view."""

    generation: int
    set: str
    views: Mapping[str, int]


@dataclass(frozen=True)
class GateRecord:
    """A candidate all of whose packages were installed offline.

    `upgraded_from` is the candidate whose install root was upgraded; 0 is a fresh installation.
    """

    generation: int
    packages: int
    upgraded_from: int = 0


@dataclass(frozen=True)
class PublishRecord:
    """The generation that clients see; `views` counts the packages of each view."""

    generation: int
    set: str
    views: Mapping[str, int]


@dataclass(frozen=True)
class ClientRecord:
    """The packages (CPV) of a published generation that a client has installed, sorted.

    `upgraded_from` is the generation that it had before; 0 is a fresh client.
    """

    generation: int
    installed: tuple[str, ...]
    upgraded_from: int = 0


@dataclass(frozen=True)
class AccessTestRecord:
    """The packages that a member of a group installed over TLS, and the users that were refused.

    `upgraded_from` is the generation that the member had before; 0 is a fresh client.
    """

    generation: int
    group: str
    installed: tuple[str, ...]
    refused: tuple[str, ...]
    upgraded_from: int = 0


@dataclass(frozen=True)
class MirrorRecord:
    """The number of distfiles of each group, and a digest of their names."""

    files: Mapping[str, int]
    names: str


@dataclass(frozen=True)
class Kind(Generic[R]):
    """A kind of task, and the type of its record; called with a name, it gives a key."""

    name: str
    record: type[R]

    def __call__(self, name: str = "") -> Key[R]:
        return Key(self, name)


@dataclass(frozen=True)
class Key(Generic[R]):
    """The key of one record: `SEED("base")` is what the task seed:base leaves."""

    kind: Kind[R]
    name: str = ""

    @property
    def task(self) -> str:
        """The task that leaves it, as doit names it."""
        return f"{self.kind.name}:{self.name}" if self.name else self.kind.name


SNAPSHOT = Kind("snapshot", SnapshotRecord)
LOCK = Kind("lock", LockRecord)
TREE = Kind("tree", TreeRecord)
OVERLAY = Kind("overlay", OverlayRecord)
SEED = Kind("seed", SeedRecord)
CHROOT = Kind("chroot", ChrootRecord)
ETC = Kind("etc", EtcRecord)
MOUNT = Kind("mount", MountRecord)
CHECK = Kind("check", CheckRecord)
PLAN = Kind("plan", PlanRecord)
BINPKGS = Kind("binpkgs", BinpkgsRecord)
CANDIDATE = Kind("candidate", CandidateRecord)
GATE = Kind("gate", GateRecord)
PUBLISH = Kind("publish", PublishRecord)
CLIENT = Kind("client", ClientRecord)
MEMBERS = Kind("members", AccessTestRecord)
MIRROR = Kind("mirror", MirrorRecord)


class UndeclaredInput(Exception):
    """A bug: a task reads something that the graph does not say it reads."""


@dataclass(frozen=True)
class Request:
    """The call of a task: if it was named on the command line, and its options."""

    named: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """The inputs of one task: the records and files that the graph declares for it, and no other.

    Reading anything else raises UndeclaredInput.
    """

    layout: Layout
    declared: frozenset[Key[Any]]
    files: frozenset[Path] = frozenset()
    request: Request = Request()

    def __getitem__(self, key: Key[R]) -> R:
        """The record of a declared key; raises Stale where its task has not run."""
        if key not in self.declared:
            raise UndeclaredInput(f"{key.task} is not declared; declared: {self._names()}")
        return load(self.layout, key)

    def lock(self) -> Lock:
        """config.lock, where it is a declared file; raises Stale where there is none yet."""
        if self.layout.lock not in self.files:
            raise UndeclaredInput(f"config.lock is not declared; declared: {self._names()}")
        return lock_file.read(self.layout)

    def _names(self) -> str:
        names = [*(key.task for key in self.declared), *(path.name for path in self.files)]
        return ", ".join(sorted(names)) or "nothing"


def reading(layout: Layout, keys: Iterable[Key[Any]]) -> Inputs:
    """The inputs of a command for people, which reads these records."""
    return Inputs(layout, frozenset(keys))


def load(layout: Layout, key: Key[R]) -> R:
    """The record of a task; raises Stale that names the task where it is missing or damaged."""
    try:
        return parse(key, layout.record(key.task).read_bytes())
    except (OSError, ValueError) as error:
        raise Stale("record-missing", task=key.task) from error


def parse(key: Key[R], raw: bytes) -> R:
    """The record that a file holds; raises ValueError for anything else."""
    kind: Any = key.kind.record
    record: R = _adapter(kind).validate_json(raw)
    return record


def save(layout: Layout, key: Key[R], record: R) -> None:
    """Write a record, with sorted keys, in one step."""
    write_atomic(
        layout.record(key.task), json.dumps(plain(record), indent=1, sort_keys=True) + "\n"
    )


def plain(record: Any) -> dict[str, Any]:
    """The fields of a record as plain data, as its file has them.

    An empty `modified` is left out, as in the records of version 0.1.
    """
    kind: Any = type(record)
    fields: dict[str, Any] = _adapter(kind).dump_python(record, mode="json", by_alias=True)
    return {name: value for name, value in fields.items() if (name, value) != ("touched", [])}


def earlier(layout: Layout, task: str) -> Path:
    """The place of a task's earlier record while a new one is made."""
    return layout.record(task).with_suffix(".before")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    kind.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    return TypeAdapter(kind)
