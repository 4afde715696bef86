"""Nouns that several packages pass to each other."""

from __future__ import annotations

from dataclasses import dataclass


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
