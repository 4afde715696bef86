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
    Pattern,
    Remote,
    Url,
    UseWord,
    Variable,
    Word,
)


class _Table(BaseModel):
    model_config = STRICT


class Key(_Table):
    """The trusted keys of one role: a key file from any source, pinned by primary fingerprints."""

    file: Line
    fingerprints: list[Fingerprint] = Field(min_length=1)
    accept_expired_before: date | None = None


class Mirrors(_Table):
    """Mirrors of Gentoo, tried in order; `local` ones may have restricted distfiles."""

    gentoo: list[Url] = Field(min_length=1)
    local: list[Url] = []


class Network(_Table):
    """A proxy for mirrors and git remotes, and the hosts that are reached without it."""

    proxy: Url | None = None
    no_proxy: list[Word] = []


class Tree(_Table):
    """The ebuild repository whose snapshots are frozen day by day."""

    name: Name = "gentoo"
    key: Name
    remote: Remote | None = None
    lookback_days: int = Field(default=7, ge=1, le=365)
    warn_hours: int = Field(default=36, ge=0)  # age of the newest snapshot; 0: never
    fail_hours: int = Field(default=72, ge=0)
    manifests: Literal["when-signed", "always", "never"] = "when-signed"


class Overlay(_Table):
    """A git repository of ebuilds, which the lock pins to a commit."""

    url: Remote
    branch: Branch = "main"


class ChrootConfig(_Table):
    """A base (with `seed`) or a stack (with `base`), and the packages that are built in it."""

    seed: Name | None = None
    base: Name | None = None
    profile: Word | None = None
    overlays: list[Name] = []
    packages: list[Word] = []
    use: list[Flag] = []
    package_use: dict[Word, list[UseWord]] = {}
    accept_keywords: list[Word] = []
    package_accept_keywords: dict[Word, list[Word]] = {}
    accept_license: list[Line] = []
    package_license: dict[Word, list[Line]] = {}
    package_mask: list[Word] = []
    package_unmask: list[Word] = []
    features: list[Flag] = []
    test: list[Word] = []  # packages that are built with FEATURES=test
    env: dict[Variable, Line] = {}
    portage_dir: Line | None = None
    groups: list[Group] = []  # a build may fetch their restricted distfiles


class Binhost(_Table):
    """Settings for signing, keeping and serving generations."""

    listen: Listen = "127.0.0.1:8480"
    url: Url | None = None  # the address for clients
    channels: list[Name] = []  # a generation can be promoted to them
    keep: int = Field(default=5, ge=1, le=1000)
    keep_days: int = Field(default=7, ge=0, le=3650)
    builder: Line = "urn:binmill:builder"  # the builder's id in provenance, a URI
    valid_days: int = Field(default=30, ge=1, le=3650)  # of a release manifest
    # Candidates from one fresh installation to the next; an upgrade adds a layer to those to mount.
    fresh_install_every: int = Field(default=10, ge=1, le=50)
    signing_home: Line = "secrets/gnupg"
    signing_key: Fingerprint | None = None


class PackageLimits(_Table):
    """Limits of some packages, instead of those of [build]; None: the same."""

    jobs: int | None = Field(default=None, ge=0, le=1024)
    package_minutes: int | None = Field(default=None, ge=0)
    silent_minutes: int | None = Field(default=None, ge=0)
    log_mb: int | None = Field(default=None, ge=0)
    memory_mb: int | None = Field(default=None, ge=0)
    processes: int | None = Field(default=None, ge=0)
    tmpfs_mb: int | None = Field(default=None, ge=0)


class Build(_Table):
    """The driver of builds, and their limits.

    `packages` at once, `jobs` (processes) of each, `timeout_minutes` of the whole build. The others
    are for single packages in buildroots: minutes, minutes without output, megabytes of log and of
    memory, processes at once; 0 is no limit. `tmpfs_mb` is the size of a tmpfs for work
    directories; 0 is none. `priorities`, `apart`, `limits` and `extra_build_deps` (CATEGORY/NAME)
    are by pattern (see planner.schedule.matches).
    """

    driver: Literal["per-package", "emerge"] = "per-package"
    packages: int = Field(default=1, ge=1, le=512)
    jobs: int = Field(default=0, ge=0, le=1024)  # 0: one per processor
    timeout_minutes: int = Field(default=24 * 60, ge=1)
    package_minutes: int = Field(default=12 * 60, ge=0)
    silent_minutes: int = Field(default=60, ge=0)
    log_mb: int = Field(default=500, ge=0)
    memory_mb: int = Field(default=0, ge=0)
    processes: int = Field(default=10_000, ge=0)
    tmpfs_mb: int = Field(default=0, ge=0)
    strict: bool = False
    priorities: dict[Pattern, int] = {}
    apart: list[list[Pattern]] = []
    limits: dict[Pattern, PackageLimits] = {}
    extra_build_deps: dict[Pattern, list[Word]] = {}


class Logs(_Table):
    """Limits of the logs of all runs together: age and size."""

    keep_days: int = Field(default=30, ge=1, le=3650)
    keep_mb: int = Field(default=1000, ge=1)


class Config(_Table):
    """The config.toml of one site."""

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
        """A chroot and the chroots below it, base first: ["base", "java"]."""
        names = [name]
        while (base := self.chroots[names[0]].base) is not None:
            names.insert(0, base)
        return names

    def seed_of(self, name: str) -> str:
        """The seed below a chroot."""
        seed = self.chroots[self.lineage(name)[0]].seed
        assert seed is not None  # noqa: S101 - load() has checked it
        return seed

    def effective(self, name: str) -> ChrootConfig:
        """The settings of a chroot: those of its bases, then its own, which extend or override.

        `packages` are not inherited: a stack builds its own. Nor is `portage_dir`: a stack has the
        files of all of them (Chroot.portage_dirs).
        """
        settings: dict[str, Any] = {}
        for link in self.lineage(name):
            for key, value in self.chroots[link].model_dump(exclude_defaults=True).items():
                if key == "packages" or (key in ("seed", "base", "portage_dir") and link != name):
                    continue
                if isinstance(value, dict):
                    settings[key] = _join(settings.get(key, {}), value)
                elif isinstance(value, list):
                    # a repeated value moves to the end: of `ssl`, `-ssl` the last one counts
                    settings[key] = [*(v for v in settings.get(key, []) if v not in value), *value]
                else:
                    settings[key] = value
        return ChrootConfig(**{**settings, "packages": self.chroots[name].packages})


_Entries = dict[str, str | list[str]]  # a table within a chroot's: package_use, env and the like


def _join(lower: _Entries, upper: _Entries) -> _Entries:
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key, [])
        result[key] = [*below, *value] if isinstance(value, list) else value
    return result
