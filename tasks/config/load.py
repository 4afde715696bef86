"""config.toml -> frozen, validated nouns.

What is wanted, and nothing else: no path is opened, no mirror asked. Every problem in the file
is found in one go and reported with its table, its key and, where one is near, a suggestion.
docs/config.md is the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

import tomli
from pydantic import BaseModel, Field, ValidationError

from tasks.config.access import Access, Mirror, Serve
from tasks.config.access import problems as access_problems
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
    meant,
)
from tasks.errors import ConfigError
from tasks.layout import Layout

_LONGEST_KEY = 64  # characters of one that is told


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


class Chroot(_Table):
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
    chroots: dict[Name, Chroot]
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

    def effective(self, name: str) -> Chroot:
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
        return Chroot(**{**merged, "packages": self.chroots[name].packages})


def load(layout: Layout) -> Config:
    """Read and check a site's config.toml; raises ConfigError that lists every problem."""
    path = layout.config
    try:
        raw = tomli.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", "run doit in the project, or set BINMILL_CONFIG=FILE"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    try:
        config = Config.model_validate(raw)
    except ValidationError as invalid:
        raise _report(path, [_worded(e) for e in invalid.errors()]) from None
    if problems := list(_references(config)):
        raise _report(path, problems)
    return config


def _joined(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    result = dict(lower)
    for key, value in upper.items():
        below = result.get(key, [])
        result[key] = [*below, *value] if isinstance(value, list) else value
    return result


def _report(path: Path, problems: list[str]) -> ConfigError:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = "".join(f"\n  {line}" for line in problems)
    return ConfigError(f"{path}: {count}, nothing was done{lines}", "docs/config.md has every key")


def _worded(error: Any) -> str:
    """One pydantic error as a person would say it: [table] key: what is wrong."""
    where: list[str] = []
    for part in error["loc"]:
        if isinstance(part, int):
            where[-1] += f"[{part}]"  # the second of a list: key[1]
        elif part != "[key]":
            where.append(part)
    table, key = ".".join(map(_shown, where[:-1])), _shown(where[-1])
    place = f"[{table}] {key}" if table else key
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"{place}: unknown key{meant(where[-1], _known_keys(where[:-1]))}"
    if kind == "missing":
        return f"{place}: missing"
    if kind == "value_error":
        return f"{place}: {error['ctx']['error']}"
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]} (got {error['input']!r:.60})"


def _shown(key: str) -> str:
    """A key as it stands in the file, where a terminal may be given it."""
    return key if key.isprintable() and len(key) <= _LONGEST_KEY else repr(key[:_LONGEST_KEY])


def _known_keys(where: list[str]) -> list[str]:
    """The keys that the table at a path may have, read off the models themselves."""
    model: Any = Config
    names = iter(where)
    for part in names:
        annotation = model.model_fields[part].annotation
        if hasattr(annotation, "model_fields"):
            model = annotation
            continue
        value = annotation.__args__[-1] if hasattr(annotation, "__args__") else None
        if not hasattr(value, "model_fields"):
            return []
        model = value
        next(names, None)  # the name of the entry: [chroots.NAME]
    return list(model.model_fields)


def _references(config: Config) -> Iterator[str]:
    """Names that lead nowhere, chroots without ground, and rings of bases."""

    def reference(place: str, kind: str, name: str, known: list[str]) -> Iterator[str]:
        if name not in known:
            yield f"{place}: no {kind} {name!r}{meant(name, known)}"

    keys = list(config.keys)
    yield from reference("[tree] key", "key", config.tree.key, keys)
    for name, seed in config.seeds.items():
        if seed.key is not None:
            yield from reference(f"[seeds.{name}] key", "key", seed.key, keys)
    for name, chroot in config.chroots.items():
        place = f"[chroots.{name}]"
        if (chroot.seed is None) == (chroot.base is None):
            yield f"{place}: needs either seed (a base) or base (a stack), not both"
        if chroot.seed is not None:
            yield from reference(f"{place} seed", "seed", chroot.seed, list(config.seeds))
        if chroot.base is not None:
            yield from reference(f"{place} base", "chroot", chroot.base, list(config.chroots))
        for overlay in chroot.overlays:
            yield from reference(f"{place} overlays", "overlay", overlay, list(config.overlays))
        for group in chroot.groups:
            yield from reference(f"{place} groups", "group", group, list(config.access.groups))
        if chroot.seed is not None and chroot.base is None and chroot.profile is None:
            yield f"{place} profile: missing (a base names its profile)"
        yield from _ring(config, name)
    for channel in {c for c in config.binhost.channels if config.binhost.channels.count(c) > 1}:
        yield f"[binhost] channels: {channel!r} is there twice"
    if config.tree.name in config.overlays:
        yield f"[overlays.{config.tree.name}]: has the name of the tree"
    yield from access_problems(config.access, config.serve, list(config.chroots))


def _ring(config: Config, start: str) -> Iterator[str]:
    seen = [start]
    while (base := config.chroots[seen[-1]].base) is not None and base in config.chroots:
        if base in seen:
            if base == start and start == min(seen):  # each ring is told once
                yield f"[chroots.{start}] base: runs in a circle: {' -> '.join([*seen, base])}"
            return
        seen.append(base)
