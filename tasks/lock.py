"""config.lock: the exact tree, overlays and stages that config.toml was resolved to.

All later tasks depend on config.toml and config.lock alone.
"""

from __future__ import annotations

from typing import Any, Literal

import tomli
import tomli_w
from pydantic import BaseModel, ValidationError

from tasks.config.seeds import Seed
from tasks.config.tables import Config
from tasks.config.types import STRICT, Branch, Commit, Digest, Line, Name, Remote, Word
from tasks.domain import Gap
from tasks.errors import ConfigError, Stale
from tasks.layout import Layout
from tasks.system.files import write_atomic
from tasks.text import without_password

_HEAD = """\
# Written by `doit lock`. It pins what config.toml asks for: keep it in version control.
# The same config.toml and config.lock make the same chroots and package sets again.
"""


class _Pin(BaseModel):
    model_config = STRICT


class TreePin(_Pin):
    """A frozen snapshot: `tag` is its day (YYYYMMDD), `commit` its id in the tree repository."""

    tag: Word
    commit: Commit


class OverlayPin(_Pin):
    """An overlay at one commit of `branch` at `url` (without its password)."""

    url: Remote
    branch: Branch
    commit: Commit


class SeedPin(_Pin):
    """A stage tarball: `path` below MIRROR/releases/ARCH/autobuilds, `size` in bytes if known.

    `contents` is the path of its listing, if the signed digests have one. A local file has neither
    `arch` nor `flavour`; its `path` is that of config.toml.
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
        """The time in the name of its directory (YYYYMMDDTHHMMSSZ)."""
        return self.path.partition("/")[0]

    def serves(self, seed: Seed) -> bool:
        """Tell whether this pins what the config asks for."""
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

    def gaps(self, config: Config) -> list[Gap]:
        """The overlays and seeds of the config that this lock does not pin."""
        gaps = []
        for name, overlay in config.overlays.items():
            pin = self.overlays.get(name)
            if pin is None or (pin.url, pin.branch) != (
                without_password(overlay.url),
                overlay.branch,
            ):
                gaps.append(Gap("overlay", name))
        for name, seed in config.seeds.items():
            stage = self.seeds.get(name)
            if stage is None or not stage.serves(seed):
                gaps.append(Gap("seed", name))
        return gaps


def read_or_none(layout: Layout) -> Lock | None:
    """Read config.lock, None if there is none; raises ConfigError if it is damaged."""
    try:
        raw = tomli.loads(layout.lock.read_text(encoding="utf-8"))
        return Lock.model_validate(raw)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, ValidationError) as error:
        cause = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            problem = error.errors()[0]
            cause = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        raise ConfigError("lock-unusable", path=layout.lock, cause=cause) from error


def read(layout: Layout) -> Lock:
    """Read config.lock; raises Stale if there is none."""
    lock = read_or_none(layout)
    if lock is None:
        raise Stale("lock-missing", path=layout.lock)
    return lock


def pin_of(pins: dict[str, Any], kind: str, name: str) -> Any:
    """The pin of one overlay or seed; raises Stale if the lock does not have it."""
    if name not in pins:
        raise Stale("pin-missing", kind=kind, name=name)
    return pins[name]


def write(layout: Layout, lock: Lock) -> None:
    """Write the lock, sorted, in one step."""
    raw = lock.model_dump(exclude_none=True)
    tables = {key: dict(sorted(raw[key].items())) for key in ("overlays", "seeds") if raw[key]}
    ordered = {"version": raw["version"], "tree": raw["tree"], **tables}
    write_atomic(layout.lock, _HEAD + tomli_w.dumps(ordered))
