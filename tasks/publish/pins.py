"""The pins of one chroot, as release manifest and provenance state them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PinnedTree:
    """The main repository: its name, and the tag and commit of its snapshot."""

    name: str
    tag: str
    commit: str


@dataclass(frozen=True)
class PinnedSeed:
    """The stage tarball: the seed's name in config.toml, and the tarball's path and SHA-512."""

    name: str
    path: str
    sha512: str


@dataclass(frozen=True)
class Pins:
    """The sources that config.lock pins for a chroot; `overlays` has a commit for each name."""

    tree: PinnedTree
    overlays: Mapping[str, str]
    seed: PinnedSeed

    def plain(self) -> dict[str, Any]:
        """The pins as plain data."""
        return asdict(self)

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> Pins:
        """The inverse of `plain`; further keys are ignored."""
        tree, seed = PinnedTree(**plain["tree"]), PinnedSeed(**plain["seed"])
        return cls(tree, dict(plain["overlays"]), seed)
