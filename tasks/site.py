"""A site: where it is and what its config wants; what every action is handed."""

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
from tasks.errors import ConfigError
from tasks.layout import Layout
from tasks.system.files import remove_tree

if TYPE_CHECKING:
    from tasks.config.load import Config
    from tasks.system.gpgv import Role

CONFIG_VARIABLE = "BINMILL_CONFIG"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")  # no proxy can reach this host's own


@dataclass(frozen=True)
class Site:
    """A loaded config.toml and the paths around it."""

    layout: Layout
    config: Config

    def role(self, key: str) -> Role:
        """Whom to believe for a role; a relative key file is beside config.toml."""
        from tasks.system.gpgv import Role

        entry = self.config.keys[key]
        file = self.layout.site / entry.file
        return Role(key, file, tuple(entry.fingerprints), entry.accept_expired_before)

    @property
    def mirrors(self) -> tuple[str, ...]:
        return tuple(self.config.mirrors.gentoo)

    @property
    def signing_home(self) -> Path:
        """The GnuPG home of the key that signs packages."""
        return self.layout.site / self.config.binhost.signing_home

    @property
    def no_proxy(self) -> list[str]:
        """What is reached without the proxy of [network]."""
        return [*self.config.network.no_proxy, *_LOOPBACK]

    @property
    def proxies(self) -> dict[str, str]:
        """[network] as variables, for those inside who fetch (wget(1))."""
        proxy = self.config.network.proxy
        if proxy is None:
            return {}
        return {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": ",".join(self.no_proxy)}

    @contextmanager
    def scratch(self, task: str) -> Iterator[Path]:
        """A task's private directory for untrusted downloads; what a killed run left is swept."""
        folder = self.layout.work / f"download-{task.replace(':', '.')}"
        remove_tree(folder, self.layout.trash)
        folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
        finally:
            remove_tree(folder, self.layout.trash)


def find(project: Path) -> Layout:
    """The site to work on: that of $BINMILL_CONFIG (a config.toml), else the project itself."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named and Path(named).name != "config.toml":
        raise ConfigError(
            f"{CONFIG_VARIABLE}={named} does not name a config.toml",
            "a site is a directory: its config.toml, config.lock and state/ lie together",
        )
    site = Path(named).absolute().parent if named else project.absolute()
    run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
    return Layout(site=site, state=site / "state", run=run)


def load(project: Path) -> Site:
    """The site with its config; raises ConfigError listing every problem."""
    layout = find(project)
    return Site(layout, config_file.load(layout))


def identity(plan: Any) -> str:
    """A name for plain data: the SHA-256 of its sorted JSON."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
