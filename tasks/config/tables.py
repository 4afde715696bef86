"""The tables of config.toml as frozen, validated nouns; docs/config.md is the reference."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, Field

from tasks.config.access import Access, Mirror, Serve
from tasks.config.seeds import Seed
from tasks.config.types import (
    STRICT,
    Branch,
    Fingerprint,
    Flag,
    Group,
    Line,
    Listen,
    Name,
    Remote,
    Url,
    Variable,
    Word,
)


class _Table(BaseModel):
    model_config = STRICT


class Key(_Table):
    """Whom to believe, for one role: a key file from anywhere, pinned by primary fingerprint."""

    file: Line
    fingerprints: list[Fingerprint] = Field(min_length=1)
    accept_expired_before: date | None = None


class Mirrors(_Table):
    """Where files come from. `gentoo` is asked in order; `local` knows restricted distfiles."""

    gentoo: list[Url] = Field(min_length=1)
    local: list[Url] = []


class Network(_Table):
    """How the mirrors and git remotes are reached: a proxy, and hosts that need none."""

    proxy: Url | None = None
    no_proxy: list[Word] = []


class Tree(_Table):
    """The ebuild repository that is frozen day by day."""

    name: Name = "gentoo"
    key: Name
    remote: Remote | None = None
    lookback_days: int = Field(default=7, ge=1, le=365)
    warn_hours: int = Field(default=36, ge=0)  # the newest is older than this; 0: never
    fail_hours: int = Field(default=72, ge=0)
    manifests: Literal["when-signed", "always", "never"] = "when-signed"


class Overlay(_Table):
    """A git repository of ebuilds, pinned to a commit by the lock."""

    url: Remote
    branch: Branch = "main"


class ChrootConfig(_Table):
    """A base (has `seed`) or a stack (has `base`) and the set of packages built in it."""

    seed: Name | None = None
    base: Name | None = None
    profile: Word | None = None
    overlays: list[Name] = []
    packages: list[Word] = []
    use: list[Flag] = []
    package_use: dict[Word, list[Flag]] = {}
    accept_keywords: list[Word] = []
    package_accept_keywords: dict[Word, list[Word]] = {}
    accept_license: list[Line] = []
    package_license: dict[Word, list[Line]] = {}
    package_mask: list[Word] = []
    package_unmask: list[Word] = []
    features: list[Flag] = []
    env: dict[Variable, Line] = {}
    portage_dir: Line | None = None
    groups: list[Group] = []  # whose distfiles a build may fetch


class Binhost(_Table):
    """How the published packages are signed and served: a GnuPG home and the key in it."""

    listen: Listen = "127.0.0.1:8480"
    url: Url | None = None  # under which clients reach it
    channels: list[Name] = []  # to which a generation can be promoted
    keep: int = Field(default=5, ge=1, le=1000)
    keep_days: int = Field(default=7, ge=0, le=3650)
    builder: Line = "urn:binmill:builder"  # the builder's id in provenance, a URI
    valid_days: int = Field(default=30, ge=1, le=3650)  # of a release manifest
    signing_home: Line = "secrets/gnupg"
    signing_key: Fingerprint | None = None


class Build(_Table):
    """How much of the machine a build may use: packages at once, and processes per package."""

    packages: int = Field(default=1, ge=1, le=512)
    jobs: int = Field(default=0, ge=0, le=1024)  # 0: as many as the machine has processors
    timeout_minutes: int = Field(default=24 * 60, ge=1)


class Logs(_Table):
    """How long the logs of runs are kept: by age, and by what all of them take."""

    keep_days: int = Field(default=30, ge=1, le=3650)
    keep_mb: int = Field(default=1000, ge=1)


class Config(_Table):
    """One site's config.toml."""

    keys: dict[Name, Key]
    mirrors: Mirrors
    network: Network = Network()
    tree: Tree
    overlays: dict[Name, Overlay] = {}
    seeds: dict[Name, Seed]
    chroots: dict[Name, ChrootConfig]
    binhost: Binhost = Binhost()
    build: Build = Build()
    logs: Logs = Logs()
    access: Access = Access()
    mirror: Mirror = Mirror()
    serve: Serve = Serve()

    def lineage(self, name: str) -> list[str]:
        """A chroot and what it is derived from, base first: ["base", "java"]."""
        found = [name]
        while (base := self.chroots[found[0]].base) is not None:
            found.insert(0, base)
        return found

    def seed_of(self, name: str) -> str:
        """The seed at the bottom of a chroot."""
        seed = self.chroots[self.lineage(name)[0]].seed
        assert seed is not None  # noqa: S101 - _references has checked it
        return seed

    def effective(self, name: str) -> ChrootConfig:
        """What holds in a chroot: its bases' settings, then its own added or put on top.

        `packages` are the chroot's own: a stack's set is what the stack was made for.
        """
        merged: dict[str, Any] = {}
        for link in self.lineage(name):
            for key, value in self.chroots[link].model_dump(exclude_defaults=True).items():
                if key == "packages" or (key in ("seed", "base", "portage_dir") and link != name):
                    continue
                if isinstance(value, dict):
                    merged[key] = _joined(merged.get(key, {}), value)
                elif isinstance(value, list):
                    # what is said again moves to the end: the last of `ssl`, `-ssl` holds
                    merged[key] = [*(v for v in merged.get(key, []) if v not in value), *value]
                else:
                    merged[key] = value
        return ChrootConfig(**{**merged, "packages": self.chroots[name].packages})


def _joined(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key, [])
        result[key] = [*below, *value] if isinstance(value, list) else value
    return result
