"""config.lock: what config.toml was resolved to; belongs in version control.

Everything after the lock is a function of config and lock alone.
"""

from __future__ import annotations

from typing import Any, Literal

import tomli
import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.config.seeds import Seed
from tasks.config.tables import Config
from tasks.config.types import Branch, Commit, Digest, Line, Name, Remote, Word
from tasks.errors import ConfigError, Stale
from tasks.layout import Layout
from tasks.system.files import write_atomic
from tasks.system.http import public

_HEAD = """\
# Written by `doit lock`. It pins what config.toml asks for: keep it in version control.
# The same config.toml and config.lock make the same chroots and package sets again.
"""


class _Pin(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TreePin(_Pin):
    """A frozen snapshot: `tag` is its day (YYYYMMDD), `commit` its id in the tree repository."""

    tag: Word
    commit: Commit


class OverlayPin(_Pin):
    """An overlay at one commit; `url` (without a password) and `branch` say where it was found."""

    url: Remote
    branch: Branch
    commit: Commit


class SeedPin(_Pin):
    """A stage tarball: `path` below MIRROR/releases/ARCH/autobuilds, `size` in bytes if known.

    `contents` is the path of its listing, if the signed digests have one. A file of one's own has
    no `arch` and `flavour`: `path` is as in config.toml.
    """

    arch: Name | None = None
    flavour: Name | None = None
    path: Line
    size: int | None = None
    sha512: Digest
    contents: Line | None = None
    contents_sha512: Digest | None = None

    @property
    def build(self) -> str:
        """The time in its name (YYYYMMDDTHHMMSSZ), which is its directory's, too."""
        return self.path.partition("/")[0]

    def serves(self, seed: Seed) -> bool:
        """Whether this is a pin of what the config asks for."""
        if seed.file is not None:
            return (self.path, self.sha512) == (seed.file, seed.sha512)
        return (self.arch, self.flavour) == (seed.arch, seed.flavour) and (
            seed.build in (None, self.build)
        )


class Lock(_Pin):
    """One site's config.lock."""

    version: Literal[1] = 1
    tree: TreePin
    overlays: dict[Name, OverlayPin] = {}
    seeds: dict[Name, SeedPin] = {}

    def missing(self, config: Config) -> list[str]:
        """What the config asks for and this lock does not pin, in a person's words."""
        gaps = []
        for name, overlay in config.overlays.items():
            pin = self.overlays.get(name)
            if pin is None or (pin.url, pin.branch) != (public(overlay.url), overlay.branch):
                gaps.append(f"overlay {name}")
        for name, seed in config.seeds.items():
            held = self.seeds.get(name)
            if held is None or not held.serves(seed):
                gaps.append(f"seed {name}")
        return gaps


def load(layout: Layout) -> Lock | None:
    """The lock beside a config, or None where there is none yet; raises ConfigError."""
    try:
        raw = tomli.loads(layout.lock.read_text(encoding="utf-8"))
        return Lock.model_validate(raw)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            problem = error.errors()[0]
            first = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        raise ConfigError(
            f"{layout.lock} cannot be used: {first}",
            "take it back from version control, or delete it and run `doit lock`",
        ) from error


def read(layout: Layout) -> Lock:
    """The lock, which must be there by now; raises Stale where it is not."""
    lock = load(layout)
    if lock is None:
        raise Stale(f"{layout.lock} does not exist", "run `doit lock`")
    return lock


def pinned(pins: dict[str, Any], kind: str, name: str) -> Any:
    """The pin of one overlay or seed; raises Stale where the lock does not have it."""
    if name not in pins:
        raise Stale(f"config.lock does not pin the {kind} {name}", "run `doit lock`")
    return pins[name]


def write(layout: Layout, lock: Lock) -> None:
    """Write the lock, sorted, in one step."""
    raw = lock.model_dump(exclude_none=True)
    tables = {key: dict(sorted(raw[key].items())) for key in ("overlays", "seeds") if raw[key]}
    ordered = {"version": raw["version"], "tree": raw["tree"], **tables}
    write_atomic(layout.lock, _HEAD + tomli_w.dumps(ordered))
