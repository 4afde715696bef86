"""config.toml -> frozen, validated nouns.

What is wanted, and nothing else: no path is opened, no mirror asked. Every problem in the file
is found in one go and reported with its table, its key and, where one is near, a suggestion.
docs/config.md is the reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli
from pydantic import ValidationError

from tasks.config.access import problems as access_problems
from tasks.config.tables import Build, Config, Overlay
from tasks.config.types import meant
from tasks.errors import ConfigError
from tasks.layout import Layout

__all__ = ["Build", "Config", "Overlay", "load"]
_LONGEST_KEY = 64  # characters of one that is told


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
