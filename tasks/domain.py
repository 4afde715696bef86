"""Nouns that several packages pass to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Package:
    """A collected binary package of a set: one build of one version.

    `cpv` is CATEGORY/NAME-VERSION, `path` its place below a binhost or PKGDIR, `size` in bytes,
    `sha512` of the file as it was collected, before it is signed. `use` has the flags that were on,
    sorted.
    """

    cpv: str
    build_id: int
    slot: str
    use: str
    repo: str
    path: str
    size: int
    sha512: str


@dataclass(frozen=True)
class Gap:
    """An overlay or seed of config.toml that config.lock does not pin, or pins in another form."""

    kind: Literal["overlay", "seed"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
