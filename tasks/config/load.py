"""config.toml -> Config.

No other path is opened and no mirror is asked. Every problem in the file is reported at once, with
its table, its key and, where one is close, a suggestion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tomli
from pydantic import ValidationError

from tasks.config import access
from tasks.config.problem import BadValue, Problem, printable_key, problem
from tasks.config.tables import ChrootConfig, Config
from tasks.errors import ConfigError
from tasks.layout import Layout

# Variables of make.conf(5) and emerge(1) that binmill sets, and those of another root or prefix.
OWN_VARIABLES = frozenset(
    [
        "BINPKG_FORMAT",
        "DISTDIR",
        "GENTOO_MIRRORS",
        "PKGDIR",
        "PORTAGE_LOGDIR",
        "PORTDIR",
        "PORTDIR_OVERLAY",
    ]
)
ROOT_VARIABLES = frozenset(
    ["BROOT", "EPREFIX", "EROOT", "ESYSROOT", "PORTAGE_CONFIGROOT", "ROOT", "SYSROOT"]
)


class InvalidConfig(ConfigError):
    """config.toml can be read, but not used: `problems` has every fault of it."""

    def __init__(self, layout: Layout, problems: list[Problem]) -> None:
        super().__init__(
            "config-invalid", path=layout.config, problems=[str(each) for each in problems]
        )
        self.problems = problems


def read_config(layout: Layout) -> Config:
    """Read and check a site's config.toml; raises ConfigError, with every problem."""
    path = layout.config
    try:
        raw = tomli.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("config-missing", path=path) from None
    except tomli.TOMLDecodeError as error:
        raise ConfigError("config-not-toml", path=path, cause=str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config-unreadable", path=path, cause=str(error)) from error
    try:
        config = Config.model_validate(raw)
    except ValidationError as invalid:
        raise InvalidConfig(layout, [_problem(each) for each in invalid.errors()]) from None
    if problems := list(_references(config)):
        raise InvalidConfig(layout, problems)
    return config


def _problem(error: Any) -> Problem:
    """Translate an error of pydantic."""
    path: list[str] = []
    for part in error["loc"]:
        if isinstance(part, int):
            path[-1] += f"[{part}]"  # the second of a list: key[1]
        elif part != "[key]":
            path.append(part)
    *tables, key = path
    place = (".".join(map(printable_key, tables)), printable_key(key))
    match error["type"]:
        case "extra_forbidden":
            return problem("unknown-key", *place, word=key, known=_valid_keys(tables))
        case "missing":
            return problem("missing-key", *place)
        case "value_error":
            cause: BadValue = error["ctx"]["error"]
            return Problem(*place, cause.code, cause.fields)
    reason = f"{error['msg'][0].lower()}{error['msg'][1:]}"
    return problem("wrong-value", *place, reason=reason, value=f"{error['input']!r:.60}")


def _valid_keys(tables: list[str]) -> list[str]:
    """The keys that the table at a path may have, read off the models themselves."""
    model: Any = Config
    names = iter(tables)
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


def _references(config: Config) -> Iterator[Problem]:
    """Names that lead nowhere, chroots without a seed, and circles of bases."""
    keys = list(config.keys)
    yield from _reference("tree", "key", "key", config.tree.key, keys)
    for name, seed in config.seeds.items():
        yield from _reference(f"seeds.{name}", "key", "key", seed.key, keys)
    for name, chroot in config.chroots.items():
        yield from _chroot(config, f"chroots.{name}", chroot)
        yield from _circle(config, name)
    channels = config.binhost.channels
    for channel in sorted({each for each in channels if channels.count(each) > 1}):
        yield problem("channel-twice", "binhost", "channels", channel=channel)
    if config.tree.name in config.overlays:
        yield problem("overlay-named-as-tree", f"overlays.{config.tree.name}")
    yield from access.problems(config.access, config.serve, list(config.chroots))


def _chroot(config: Config, table: str, chroot: ChrootConfig) -> Iterator[Problem]:
    if (chroot.seed is None) == (chroot.base is None):
        yield problem("seed-or-base", table)
    yield from _reference(table, "seed", "seed", chroot.seed, list(config.seeds))
    yield from _reference(table, "base", "chroot", chroot.base, list(config.chroots))
    for overlay in chroot.overlays:
        yield from _reference(table, "overlays", "overlay", overlay, list(config.overlays))
    for group in chroot.groups:
        yield from _reference(table, "groups", "group", group, list(config.access.groups))
    for variable in chroot.env:
        if variable in OWN_VARIABLES:
            yield problem("variable-set-by-binmill", f"{table}.env", variable)
        if variable in ROOT_VARIABLES:
            yield problem("variable-of-another-root", f"{table}.env", variable)
    if chroot.seed is not None and chroot.base is None and chroot.profile is None:
        yield problem("profile-missing", table, "profile")


def _reference(
    table: str, key: str, kind: str, name: str | None, names: list[str]
) -> Iterator[Problem]:
    if name is not None and name not in names:
        yield problem("unknown-name", table, key, kind=kind, word=name, known=names)


def _circle(config: Config, start: str) -> Iterator[Problem]:
    lineage = [start]
    while (base := config.chroots[lineage[-1]].base) is not None and base in config.chroots:
        if base in lineage:
            if base == start and start == min(lineage):  # each circle is reported once
                circle = " -> ".join([*lineage, base])
                yield problem("bases-circular", f"chroots.{start}", "base", circle=circle)
            return
        lineage.append(base)
