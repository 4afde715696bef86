"""The machine's own distribution archive: where it is, and source archives out of it.

Nothing here names a host: what apt is configured to use is asked of apt itself, whatever
format its sources are written in (apt-get(8), indextargets).
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
# What a distribution appends when it repacks an archive, or to show that a version went back.
_REPACKED = re.compile(r"[.+~-]?(dfsg|ds|repack|debian|ubuntu)[.\d]*$")
_UNFINISHED = ".unfinished"
_VERSION = re.compile(r"\d+(\.\d+)*[a-z]?$")  # the part of PMS 3.2 that occurs here


@dataclass(frozen=True)
class Suite:
    """One suite of the archive with its components, as apt is configured."""

    origin: str
    uri: str
    name: str
    components: tuple[str, ...]

    def line(self, kind: str) -> str:
        """A line for sources.list(5); `kind` is deb or deb-src."""
        return f"{kind} {self.uri} {self.name} {' '.join(self.components)}"


@dataclass(frozen=True)
class Source:
    """A source archive: its version as Gentoo would write it, and the file."""

    version: str
    file: Path


def suites() -> list[Suite]:
    """The suites of this machine's distribution; the main one first.

    Raises HostLacks on a machine that is not Debian or Ubuntu, or whose lists are missing.
    """
    listed = run("apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages").stdout
    found: dict[tuple[str, str, str], list[str]] = {}
    for line in listed.splitlines():
        origin, uri, name, component = line.split("|")
        if origin in _ORIGINS and component in ("main", "universe"):
            components = found.setdefault((origin, _address(uri), name), [])
            if component not in components:
                components.append(component)
    if not found:
        raise HostLacks(
            "apt knows no Debian or Ubuntu archive on this machine",
            "apt-get update (the lab is built from the distribution's own archive)",
        )
    return [Suite(o, uri, name, tuple(parts)) for (o, uri, name), parts in found.items()]


def main_suite() -> Suite:
    """The release this machine runs, without its updates."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    # a testing or unstable machine may have another name for it: then the shortest will do
    return min(suites(), key=lambda suite: (suite.name != codename, len(suite.name)))


def proxy_options() -> list[str]:
    """How this machine's apt reaches the archive (proxies, timeouts), as lines of apt.conf(5)."""
    dump = run("apt-config", "dump", "Acquire").stdout.splitlines()
    return [line for line in dump if line.startswith(("Acquire::http", "Acquire::Retries"))]


def fetch_sources(lab: Upstream, names: list[str]) -> dict[str, Source]:
    """Fetch the upstream archive of each source package; the result is keyed by its name.

    apt verifies them against the archive's signed indices. Its state is private to the lab, so
    the machine needs no deb-src entries.
    """
    lab.archives.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not _present(lab, name)]
    if missing:
        environment = _private_apt(lab)
        run("apt-get", "update", env=environment, log=lab.logs / "sources.log")
        for name in missing:
            _fetch(lab, name, environment)
    return {name: _present(lab, name) or _absent(name) for name in names}


def _fetch(lab: Upstream, name: str, environment: dict[str, str]) -> None:
    # apt writes under the final name: only a folder that is complete gets the source's
    place = lab.archives / _UNFINISHED
    remove_tree(place, lab.trash)
    place.mkdir()
    # --tar-only: what the distribution adds to the upstream archive is not of interest
    options = ("--download-only", "--tar-only", "--only-source")
    run(
        "apt-get",
        "source",
        *options,
        name,
        cwd=place,
        env=environment,
        log=lab.logs / "sources.log",
    )
    place.rename(lab.archives / name)


def _present(lab: Upstream, name: str) -> Source | None:
    files = [
        file
        for ending in ("gz", "xz", "bz2")
        for file in (lab.archives / name).glob(f"*.orig.tar.{ending}")
    ]
    if not files:
        return None
    stem = files[-1].name.partition(".orig.tar.")[0]
    return Source(gentoo_version(stem.partition("_")[2]), files[-1])


def _absent(name: str) -> Source:
    raise BinmillError(f"the source package {name} has no upstream archive that can be used")


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
        raise BinmillError(f"{upstream!r} cannot be written as a Gentoo version")
    return version


def _address(uri: str) -> str:
    # apt-transport-mirror(1): a local list of mirrors, one address per line
    if not uri.startswith("mirror+file:"):
        return uri
    listed = Path(uri.removeprefix("mirror+file:").rstrip("/")).read_text().splitlines()
    addresses = [line.split()[0] for line in listed if line.strip() and line[0] != "#"]
    return addresses[0]


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
