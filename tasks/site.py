"""A site and its chroots: the two nouns that most functions take."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.config import load as config_file
from tasks.errors import BinmillError, ConfigError
from tasks.layout import Layout
from tasks.system.files import remove_tree

if TYPE_CHECKING:
    from tasks.config.tables import ChrootConfig, Config
    from tasks.records import BinpkgsRecord
    from tasks.system.gpgv import Role

CONFIG_VARIABLE = "BINMILL_CONFIG"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")  # no proxy can reach this host's own


@dataclass(frozen=True)
class Site:
    """A loaded config.toml and the paths around it."""

    layout: Layout
    config: Config

    def role(self, key: str) -> Role:
        """The keys that are trusted for a role; a relative key file lies beside config.toml."""
        from tasks.system.gpgv import Role

        entry = self.config.keys[key]
        file = self.layout.site / entry.file
        return Role(key, file, tuple(entry.fingerprints), entry.accept_expired_before)

    def chroot(self, name: str) -> Chroot:
        """A chroot by its name; raises BinmillError where config.toml has none of that name."""
        if name not in self.config.chroots:
            raise BinmillError("chroot-unknown", name=name, known=list(self.config.chroots))
        return Chroot(self, name)

    @property
    def chroots(self) -> list[Chroot]:
        """All chroots, in the order of config.toml."""
        return [Chroot(self, name) for name in self.config.chroots]

    @property
    def mirrors(self) -> tuple[str, ...]:
        return tuple(self.config.mirrors.gentoo)

    @property
    def signing_home(self) -> Path:
        """The GnuPG home of the key that signs packages."""
        return self.layout.site / self.config.binhost.signing_home

    @property
    def no_proxy(self) -> list[str]:
        """Hosts that are reached without the proxy of [network]."""
        return [*self.config.network.no_proxy, *_LOOPBACK]

    @property
    def proxies(self) -> dict[str, str]:
        """[network] as environment variables, for wget(1) inside a chroot."""
        proxy = self.config.network.proxy
        if proxy is None:
            return {}
        return {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": ",".join(self.no_proxy)}

    @contextmanager
    def scratch(self, task: str) -> Iterator[Path]:
        """A task's private folder for untrusted downloads, emptied of what a killed run left."""
        folder = self.layout.work / f"download-{task.replace(':', '.')}"
        remove_tree(folder, self.layout.trash)
        folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
        finally:
            remove_tree(folder, self.layout.trash)


@dataclass(frozen=True)
class Chroot:
    """One chroot of a site: its name, its settings, and its places."""

    site: Site
    name: str

    @property
    def layout(self) -> Layout:
        """The paths of its site."""
        return self.site.layout

    @property
    def own(self) -> ChrootConfig:
        """Its own table in config.toml."""
        return self.site.config.chroots[self.name]

    @property
    def config(self) -> ChrootConfig:
        """Its effective settings: those of its bases with its own on top."""
        return self.site.config.effective(self.name)

    @property
    def base(self) -> Chroot | None:
        """The chroot that it is derived from; None for a base."""
        return Chroot(self.site, self.own.base) if self.own.base else None

    @property
    def lineage(self) -> list[Chroot]:
        """Its bases, the lowest first, and itself."""
        return [Chroot(self.site, name) for name in self.site.config.lineage(self.name)]

    @property
    def portage_dirs(self) -> list[Path]:
        """The `portage_dir` of its bases, the lowest first, and its own."""
        own = (each.own.portage_dir for each in self.lineage)
        return [self.layout.site / folder for folder in own if folder]

    @property
    def seed(self) -> str:
        """The name of the seed at the bottom."""
        return self.site.config.seed_of(self.name)

    @property
    def binhost(self) -> Path:
        """The folder of its binhost."""
        return self.layout.binhost(self.name)

    def log(self, kind: str) -> Path:
        """The log of one of its tasks in this run: `log("gate")` is that of gate:NAME."""
        return self.layout.log(f"{kind}:{self.name}")

    def collected(self, record: BinpkgsRecord) -> Path:
        """The folder of a collected set."""
        return self.layout.binpkgs(self.name) / record.set

    @contextmanager
    def workspace(self, purpose: str) -> Iterator[Path]:
        """A throwaway folder for one sandbox of this chroot, called by its purpose."""
        from tasks.system import sandbox

        name = f"{purpose}-{self.name}"
        with sandbox.workspace(self.layout.work, name, self.layout.trash) as space:
            yield space


def find(project: Path) -> Layout:
    """The site to work on: that of $BINMILL_CONFIG (a config.toml), else the project itself."""
    value = os.environ.get(CONFIG_VARIABLE)
    if value and Path(value).name != "config.toml":
        raise ConfigError("config-variable-wrong", variable=CONFIG_VARIABLE, value=value)
    site = Path(value).absolute().parent if value else project.absolute()
    run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
    return Layout(site=site, state=site / "state", run=run)


def load(project: Path) -> Site:
    """The site with its config; raises ConfigError listing every problem."""
    layout = find(project)
    return Site(layout, config_file.read_config(layout))


def identity(data: Any) -> str:
    """The SHA-256 of plain data, as sorted JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
