"""Every path below a site, in one place; nobody else joins them.

A *site* is the directory that holds config.toml; config.lock and state/ lie beside it.

    config.toml                what is wanted
    config.lock                what it was resolved to
    state/
      doit.db                  doit's memory (tasks.engine.backend)
      records/TASK.json        what each finished task left, small and deterministic
      news/NAME.json           what is newer than an overlay's pin, for `doit status`
      locks/TASK               flock(2) files, one per artifact
      logs/RUN/                one run (YYYYMMDDTHHMMSSZ-PID); logs/latest points to the newest
        TASK.log               what the programs of a task printed, and how it ended
        journal                which tasks began and how they ended (tasks.engine.runs)
      tree.git/                frozen snapshots, one commit and tag per day
      overlays/NAME.git/       fetched overlays
      exports/COMMIT/          one commit as plain files, mounted read-only into chroots
      downloads/               what is being downloaded; nothing here is verified
      seeds/DIGEST/            an extracted stage, never written again; DIGEST.listing beside it
                               says what each of its files must be (tasks.system.tree_manifest)
      layers/NAME/ID/          what chroot NAME adds to the layers below it, or somebody in it
      touched/NAME/            there, while what was done in chroot NAME by hand is part of it
      etc/NAME/                the generated /etc/portage of chroot NAME
      sets/NAME/               the collected binpkgs of the newest successful build
      binhost/NAME/candidate/N/  made and signed, and not published
      binhost/NAME/gen/N/      published generations; binhost/NAME/current points to one,
                               binhost/NAME/previous to the one before it;
                               channel.CHANNEL and channel.CHANNEL.previous of each channel
        GROUP/                 what the members of a group have: an index, and links to packages
      mirror/GROUP/distfiles/  distfiles that are given to others, by group
      serve/                   nginx's own files; serve/users/ has a password file per group,
                               serve/access.log the requests
      inside/                  what chroots can write to; closed to other users of the host
        distfiles/             DISTDIR, shared by all chroots
        restricted/NAME/       DISTDIR of a chroot that is in groups
        builds/NAME/KEY/       PKGDIR of one build, kept until a build with another key begins
        logs/NAME/RUN/         PORTAGE_LOGDIR: one log per package
      work/                    throwaway upper layers of running sandboxes
      trash/                   being deleted
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+_.-]*")


def pointer(channel: str = "", *, previous: bool = False) -> str:
    """The link in a binhost to the generation that a channel has, or had before.

    "" is the channel that publish:NAME publishes to.
    """
    if not channel:
        return "previous" if previous else "current"
    return f"channel.{channel}" + (".previous" if previous else "")


@dataclass(frozen=True)
class Layout:
    """All paths of one site; absolute, written in one way."""

    site: Path
    state: Path
    run: str = field(default="", compare=False)  # this run's name; "": logs lie flat

    @property
    def config(self) -> Path:
        return self.site / "config.toml"

    @property
    def lock(self) -> Path:
        return self.site / "config.lock"

    @property
    def database(self) -> Path:
        return self.state / "doit.db"

    @property
    def tree(self) -> Path:
        return self.state / "tree.git"

    @property
    def downloads(self) -> Path:
        return self.state / "downloads"

    @property
    def distfiles(self) -> Path:
        return self.inside / "distfiles"

    def restricted_distfiles(self, name: str) -> Path:
        return self.inside / "restricted" / _one_name(name)

    @property
    def inside(self) -> Path:
        return self.state / "inside"

    @property
    def binhosts(self) -> Path:
        return self.state / "binhost"

    @property
    def work(self) -> Path:
        return self.state / "work"

    @property
    def trash(self) -> Path:
        return self.state / "trash"

    @property
    def serve(self) -> Path:
        return self.state / "serve"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run_logs(self) -> Path:
        return self.logs / self.run

    def touched(self, name: str) -> Path:
        return self.state / "touched" / _one_name(name)

    @property
    def passwords(self) -> Path:
        return self.serve / "users"

    @property
    def access_log(self) -> Path:
        return self.serve / "access.log"

    @property
    def users(self) -> Path:
        return self.site / "secrets" / "users.json"

    @property
    def certificates(self) -> Path:
        return self.site / "secrets" / "clients"

    def mirror(self, group: str) -> Path:
        return self.state / "mirror" / _one_name(group.replace(":", ".")) / "distfiles"

    @property
    def records(self) -> Path:
        return self.state / "records"

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    @property
    def overlays(self) -> Path:
        return self.state / "overlays"

    @property
    def seeds(self) -> Path:
        return self.state / "seeds"

    def record(self, task: str) -> Path:
        return self.records / f"{_one_name(task.replace(':', '.'))}.json"

    def busy(self, task: str) -> Path:
        return self.locks / _one_name(task.replace(":", "."))

    def news(self, task: str) -> Path:
        return self.state / "news" / f"{_one_name(task.replace(':', '.'))}.json"

    def log(self, task: str) -> Path:
        return self.run_logs / f"{_one_name(task.replace(':', '.'))}.log"

    def overlay(self, name: str) -> Path:
        return self.overlays / f"{_one_name(name)}.git"

    def export(self, commit: str) -> Path:
        return self.state / "exports" / _one_name(commit)

    def seed(self, digest: str) -> Path:
        return self.seeds / _one_name(digest[:32])

    def seed_listing(self, digest: str) -> Path:
        return self.seeds / f"{_one_name(digest[:32])}.listing"

    def unpacking(self, digest: str) -> Path:
        """The lock of whoever unpacks the stage of that (short) digest."""
        return self.state / "locks" / f"unpack.{_one_name(digest[:32])}"

    def layer(self, name: str, identity: str) -> Path:
        return self.state / "layers" / _one_name(name) / _one_name(identity[:32])

    def etc(self, name: str) -> Path:
        return self.state / "etc" / _one_name(name)

    def builds(self, name: str) -> Path:
        return self.inside / "builds" / _one_name(name)

    def build(self, name: str, key: str) -> Path:
        return self.builds(name) / _one_name(key[:32])

    def package_logs(self, name: str) -> Path:
        return self.inside / "logs" / _one_name(name) / self.run

    def package_logs_of(self, run: str) -> list[Path]:
        """What a run left in every chroot's PORTAGE_LOGDIR."""
        return sorted((self.inside / "logs").glob(f"*/{_one_name(run)}"))

    def binpkgs(self, name: str) -> Path:
        return self.state / "sets" / _one_name(name)

    def binhost(self, name: str) -> Path:
        return self.binhosts / _one_name(name)


def _one_name(text: str) -> str:
    """A single path component; names reach here from config and lock only after validation."""
    if not _SAFE.fullmatch(text):
        raise ValueError(f"not a file name: {text!r}")
    return text
