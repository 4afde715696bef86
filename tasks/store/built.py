"""A stored package, the entry that leads to it, and the finished build that is added."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.portage import gpkg

if TYPE_CHECKING:
    from tasks.planner.plan import PlannedPackage


@dataclass(frozen=True)
class Built:
    """A package of the store.

    `identity` and `client_digest` are those of tasks.store.identity; `size` is in bytes; `layer`
    is the id of its merge layer, "" if it has none. `stanza` is its stanza of the index, as Portage
    wrote it. `seconds` is how long its build took, `built` when it ended (epoch seconds).
    `key` is the input key that it was built for, `inputs` a digest of its own inputs.
    """

    cpv: str
    repo: str
    build_id: int
    identity: str
    client_digest: str
    sha512: str
    size: int
    layer: str
    stanza: str
    seconds: float
    built: int
    key: str
    inputs: str

    @property
    def name(self) -> gpkg.Name:
        """Its parsed name, and its path below a binhost."""
        return gpkg.parse_cpv(self.cpv, str(self.build_id))


@dataclass(frozen=True)
class Product:
    """A finished build, to be added: the plan of it, its files, and what is known about it.

    `layer` is the folder of its merge layer, on the file system of the store; None if it has none.
    """

    planned: PlannedPackage
    build_id: int
    package: Path
    layer: Path | None
    stanza: str
    seconds: float
    inputs: str


@dataclass(frozen=True)
class Entry:
    """An input key, and the package that it led to."""

    key: str
    built: Built

    @property
    def cut_off(self) -> bool:
        """True if its own build came out equal to an older package, which is used instead."""
        return self.built.key != self.key
