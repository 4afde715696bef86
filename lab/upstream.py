"""The paths of a lab, and the facts about it that its users need.

DIR/
  work/                            scratch and caches; may be deleted after the build
  mirror-server/                   nginx: its configuration, temporary files, logs
  upstream/
    mirror/                        document root of the mirror
      releases/amd64/autobuilds/   the stage and its pointer
      snapshots/                   the published days
      distfiles/                   source archives, by hash, with layout.conf
      local/                       files that no public mirror may have
    upcoming/snapshots/            the second day, until publish_next_day()
    overlays/java.git              the overlay, as a bare repository
    tree.git                       the bare repository to which a site pushes
    keys/                          public keys, one per role
    private/gnupg/                 private keys
    lab.json                       facts
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import Stale
from tasks.system.files import sync_folder

ARCH = "amd64"
FLAVOUR = "lab"
STAGE = f"stage3-{ARCH}-{FLAVOUR}"
PROFILE = "default/linux/amd64/lab"
ROLES = ("snapshots", "stages")
REPOSITORY = "gentoo"
OVERLAY = "java"
GROUP = "role:java"  # the group that may have restricted files

LAB = Path(__file__).resolve().parent
SOURCES = LAB / "sources"  # ebuilds, profiles and settings


def default_directory() -> Path:
    """Return the directory in which the lab is built by default."""
    return LAB / "build"


@dataclass(frozen=True)
class Facts:
    """The content of lab.json.

    `sources` is a digest of all that the lab is built from, `fingerprints` are by role, `days`
    the published and the upcoming day (YYYYMMDD), `stage` is the name of its tarball, `portage`
    a version; `packages` are listed by repository.
    """

    sources: str
    fingerprints: Mapping[str, str]
    days: Sequence[str]
    flavour: str
    stage: str
    portage: str
    profile: str
    packages: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Upstream:
    """The paths of a lab below its directory; other modules do not join paths."""

    directory: Path

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def trash(self) -> Path:
        return self.directory / "work" / "trash"

    @property
    def logs(self) -> Path:
        return self.directory / "work" / "logs"

    @property
    def stage_root(self) -> Path:
        return self.directory / "work" / "stage-root"

    @property
    def archives(self) -> Path:
        return self.directory / "work" / "archives"

    @property
    def calendar(self) -> Path:
        return self.directory / "work" / "calendar.json"

    @property
    def server(self) -> Path:
        return self.directory / "mirror-server"

    @property
    def upstream(self) -> Path:
        return self.directory / "upstream"

    @property
    def mirror(self) -> Path:
        return self.upstream / "mirror"

    @property
    def autobuilds(self) -> Path:
        return self.mirror / "releases" / ARCH / "autobuilds"

    @property
    def pointer(self) -> Path:
        return self.autobuilds / f"latest-{STAGE}.txt"

    @property
    def snapshots(self) -> Path:
        return self.mirror / "snapshots"

    @property
    def upcoming(self) -> Path:
        return self.upstream / "upcoming" / "snapshots"

    @property
    def distfiles(self) -> Path:
        return self.mirror / "distfiles"

    @property
    def local(self) -> Path:
        return self.mirror / "local"

    def restricted(self) -> list[Path]:
        """Return the source archives that a site must be given by hand."""
        return sorted(f for f in (self.local / "distfiles").rglob("*/*") if f.is_file())

    @property
    def overlay(self) -> Path:
        return self.upstream / "overlays" / f"{OVERLAY}.git"

    @property
    def tree(self) -> Path:
        return self.upstream / "tree.git"

    @property
    def keys(self) -> Path:
        return self.upstream / "keys"

    def key(self, role: str) -> Path:
        """The public key of a role, armored."""
        return self.keys / f"{role}.asc"

    @property
    def keyring(self) -> Path:
        return self.upstream / "private" / "gnupg"

    @property
    def facts_file(self) -> Path:
        return self.upstream / "lab.json"

    def facts(self) -> Facts:
        """Read lab.json; raises Stale when the lab is not completely built."""
        try:
            return Facts(**json.loads(self.facts_file.read_text()))
        except (FileNotFoundError, TypeError):  # TypeError: written by another version
            raise Stale("lab-not-built", directory=self.directory) from None


def publish_next_day(directory: Path) -> list[str]:
    """Publish the upcoming snapshot on the mirror; return the names of the published files.

    The archive is moved last, so that no client sees it without its signature. A second call
    publishes nothing.
    """
    lab = Upstream(directory)
    lab.facts()
    upcoming = sorted(lab.upcoming.iterdir()) if lab.upcoming.is_dir() else []
    names = []
    for file in sorted(upcoming, key=lambda path: path.name.endswith(".tar.xz")):
        os.replace(file, lab.snapshots / file.name)  # noqa: PTH105 - rename(2) is what is meant
        names.append(file.name)
    if names:
        sync_folder(lab.snapshots)
    return names
