"""What is where in the lab's upstream, and the facts about it that others may ask for.

DIR/
  work/                            scratch and caches, may be deleted when the build is done
  mirror-server/                   nginx: its configuration, temporary files, logs
  upstream/
    mirror/                        document root of the mirror
      releases/amd64/autobuilds/   the stage and its pointer
      snapshots/                   the published days
      distfiles/                   source archives, by hash, with layout.conf
      local/                       files that may not be mirrored publicly
    upcoming/snapshots/            the next day, until next_day() publishes it
    overlays/java.git              the overlay, as a bare repository
    tree.git                       the bare repository that the factory pushes to
    keys/                          public keys, one per role
    private/gnupg/                 private keys
    lab.json                       facts
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import Stale
from tasks.system.files import sync_folder

ARCH = "amd64"
FLAVOUR = "lab"
STAGE = f"stage3-{ARCH}-{FLAVOUR}"
PROFILE = "default/linux/amd64/lab"
ROLES = ("snapshots", "stages")
REPOSITORY = "gentoo"
OVERLAY = "java"
GROUP = "role:java"  # who may have what no public mirror may

LAB = Path(__file__).resolve().parent
SOURCES = LAB / "sources"  # ebuilds, profiles and settings that the lab is made from


def default_directory() -> Path:
    """Where the lab is built unless somebody says otherwise."""
    return LAB / "build"


@dataclass(frozen=True)
class Upstream:
    """Every path of a lab below its directory; nobody else joins them."""

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
        """The source archives that a person has to hand over."""
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

    def facts(self) -> dict[str, Any]:
        """lab.json: fingerprints by role, snapshot dates, stage name, packages by repository.

        Raises Stale when the lab is not (completely) built.
        """
        try:
            facts: dict[str, Any] = json.loads(self.facts_file.read_text())
        except FileNotFoundError:
            raise Stale(f"there is no lab in {self.directory}", "python -m lab build") from None
        return facts


def next_day(directory: Path) -> list[str]:
    """Publish the upcoming snapshot on the mirror; the names of what was published.

    The archive is moved last, so a client never sees it without its signature. Calling it again
    publishes nothing and succeeds.
    """
    lab = Upstream(directory)
    lab.facts()
    waiting = sorted(lab.upcoming.iterdir()) if lab.upcoming.is_dir() else []
    moved = []
    for file in sorted(waiting, key=lambda path: path.name.endswith(".tar.xz")):
        os.replace(file, lab.snapshots / file.name)  # noqa: PTH105 - rename(2) is what is meant
        moved.append(file.name)
    if moved:
        sync_folder(lab.snapshots)
    return moved
