"""The machine's own distribution archive: its suites, and source archives from it.

No host is named here: apt itself prints what it is configured to use, whatever the format of its
sources (apt-get(8), indextargets).
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from lab.upstream import Upstream
from tasks.errors import BinmillError, HostLacks
from tasks.system.command import run
from tasks.system.files import remove_tree, write_atomic

_ORIGINS = ("Debian", "Ubuntu")
_FORMAT = "$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)"
# Appended by a distribution that repacks an archive or returns to an older version.
_REPACKED = re.compile(r"[.+~-]?(dfsg|ds|repack|debian|ubuntu)[.\d]*$")
_UNFINISHED = ".unfinished"
_VERSION = re.compile(r"\d+(\.\d+)*[a-z]?$")  # the part of PMS 3.2 that occurs here


@dataclass(frozen=True)
class Suite:
    """One suite of the archive with its components, as it is configured for apt."""

    origin: str
    uri: str
    name: str
    components: tuple[str, ...]

    def line(self, kind: str) -> str:
        """Write a line for sources.list(5); `kind` is deb or deb-src."""
        return f"{kind} {self.uri} {self.name} {' '.join(self.components)}"


@dataclass(frozen=True)
class Source:
    """A source archive: its version as Gentoo writes versions, and the file."""

    version: str
    file: Path


def suites() -> list[Suite]:
    """Return the suites of this machine's distribution, the main one first.

    Raises HostLacks on a machine that is not Debian or Ubuntu, or whose lists are missing.
    """
    targets = run("apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages").stdout
    components_of: dict[tuple[str, str, str], list[str]] = {}
    for line in targets.splitlines():
        origin, uri, name, component = line.split("|")
        if origin in _ORIGINS and component in ("main", "universe"):
            components = components_of.setdefault((origin, _base_url(uri), name), [])
            if component not in components:
                components.append(component)
    if not components_of:
        raise HostLacks("lab-without-archive")
    return [Suite(o, uri, name, tuple(parts)) for (o, uri, name), parts in components_of.items()]


def main_suite() -> Suite:
    """Return the suite of the release that this machine runs, without its updates."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    # apt may have another name for testing or unstable: then the shortest one
    return min(suites(), key=lambda suite: (suite.name != codename, len(suite.name)))


def proxy_options() -> list[str]:
    """Return this machine's settings of apt for the network, as lines of apt.conf(5)."""
    dump = run("apt-config", "dump", "Acquire").stdout.splitlines()
    return [line for line in dump if line.startswith(("Acquire::http", "Acquire::Retries"))]


def fetch_sources(lab: Upstream, names: list[str]) -> dict[str, Source]:
    """Fetch the upstream archive of each source package; return them by its name.

    apt verifies them against the signed indices. Its state is private to the lab, so the machine
    needs no deb-src entries.
    """
    lab.archives.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not _source(lab, name)]
    if missing:
        environment = _private_apt(lab)
        run("apt-get", "update", env=environment, log=lab.logs / "sources.log")
        for name in missing:
            _fetch(lab, name, environment)
    sources = {}
    for name in names:
        source = _source(lab, name)
        if source is None:
            raise BinmillError("lab-source-unusable", package=name)
        sources[name] = source
    return sources


def _fetch(lab: Upstream, name: str, environment: dict[str, str]) -> None:
    # apt writes under the final name, so it writes to a folder that is renamed when complete
    folder = lab.archives / _UNFINISHED
    remove_tree(folder, lab.trash)
    folder.mkdir()
    # --tar-only: without the distribution's own additions
    options = ("--download-only", "--tar-only", "--only-source")
    run(
        "apt-get",
        "source",
        *options,
        name,
        cwd=folder,
        env=environment,
        log=lab.logs / "sources.log",
    )
    folder.rename(lab.archives / name)


def _source(lab: Upstream, name: str) -> Source | None:
    files = [
        file
        for ending in ("gz", "xz", "bz2")
        for file in (lab.archives / name).glob(f"*.orig.tar.{ending}")
    ]
    if not files:
        return None
    stem = files[-1].name.partition(".orig.tar.")[0]
    return Source(gentoo_version(stem.partition("_")[2]), files[-1])


def gentoo_version(upstream: str) -> str:
    """Write a distribution's upstream version as a Gentoo version (PMS, chapter 3.2).

    >>> gentoo_version("1.3.dfsg+really1.3.1")
    '1.3.1'
    >>> gentoo_version("2022-09-12")
    '20220912'
    """
    version = upstream.partition("really")[2] or upstream
    version = _REPACKED.sub("", version)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", version):
        version = version.replace("-", "")
    if not _VERSION.match(version):
        raise BinmillError("lab-version-unusable", version=upstream)
    return version


def _base_url(uri: str) -> str:
    # apt-transport-mirror(1): a local list of mirrors, one URL per line
    if not uri.startswith("mirror+file:"):
        return uri
    lines = Path(uri.removeprefix("mirror+file:").rstrip("/")).read_text().splitlines()
    return next(line.split()[0] for line in lines if line.strip() and line[0] != "#")


def _private_apt(lab: Upstream) -> dict[str, str]:
    home = lab.work / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    write_atomic(home / "sources.list", "".join(f"{suite.line('deb-src')}\n" for suite in suites()))
    settings = {
        "Dir::Etc::sourcelist": home / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": home / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": home / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    write_atomic(home / "apt.conf", "".join(f'{key} "{val}";\n' for key, val in settings.items()))
    return {**os.environ, "APT_CONFIG": str(home / "apt.conf"), "LC_ALL": "C.UTF-8"}
