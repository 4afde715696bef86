"""Every path below a site; no other module joins them.

A *site* is the directory that contains config.toml; config.lock and state/ are beside it.

    config.toml                the settings
    config.lock                the commits and digests that they were resolved to
    hooks/EVENT                programs that run at events (tasks.flow.hooks)
    state/
      doit.db                  doit's database (tasks.engine.backend)
      build-history.json       time and memory of earlier builds (tasks.planner.history)
      sizes.json               sizes of exports, layers and seeds (tasks.system.disk_usage)
      records/TASK.json        the record of each finished task, small and deterministic
      news/NAME.json           upstream updates of an overlay or seed, for `doit status`
      locks/TASK               flock(2) files, one per artifact
      logs/RUN/                one run (YYYYMMDDTHHMMSSZ-PID); logs/latest links to the newest
        TASK.log               the output of a task's programs, and how the task ended
        TASK.events            what happened to each package (tasks.flow.build_events)
        TASK.progress          the state of a build that runs
        journal                start and end of each task (tasks.journal)
      tree.git/                frozen snapshots, one commit and tag per day
      overlays/NAME.git/       fetched overlays
      exports/COMMIT/          the files of one commit, mounted read-only into chroots
      downloads/               downloads in progress; nothing here is verified
      seeds/DIGEST/            an extracted stage, never modified; DIGEST.listing beside it has
                               the attributes and digests of its files (tasks.system.tree_manifest)
      layers/NAME/ID/          the files that chroot NAME adds to the layers below it, or the
                               manual changes in it
      touched/NAME/            the mark of a chroot with manual changes
      etc/NAME/                the generated /etc/portage of chroot NAME
      plans/NAME/DIGEST.json   the packages of chroot NAME, as its Portage resolves them
      sets/NAME/               the collected binpkgs of the newest successful build
      store/                   packages that were built one by one (tasks.store.store)
        entries/KEY.json       an input key, and the package that it led to
        outputs/DIGEST.json    the oldest package of that name and identity
        packages/SHA512        a binary package, unsigned
        inputs/SHA512.json     what that package was built from, and why
        layers/ID/             a merge layer, never modified; ID.listing beside it has the digests
                               of its files, ID.verified says when it was compared with them
        numbers/CATEGORY/PF/   an empty file for each build number that was given out
        flat/                  several merge layers as one (tasks.buildroot.flat_layers)
        own/NAME/plan.json     the plan of which the set of chroot NAME was built last
        own/NAME/CATEGORY/     own inputs of the newest build of each package of chroot NAME
        incoming/              packages that are being added
      failed/NAME/CATEGORY/PF/  the buildroot of a failed package of chroot NAME, kept on request
                               (tasks.buildroot.failed_buildroot)
      binhost/NAME/candidate/N/  signed, not published
      binhost/NAME/gen/N/      published generations; binhost/NAME/current links to one,
                               binhost/NAME/previous to the one before it, channel.CHANNEL and
                               channel.CHANNEL.previous to those of a channel
        GROUP/                 the view of a group: an index, and links to packages
      gate/NAME/               the install root of the last candidate that passed the gate
                               (tasks.publish.install_root)
      client/NAME/             that of the client which proved the last generation
      members/NAME/            the same, of the member of a group
      mirror/GROUP/distfiles/  distfiles that are served, by group
      serve/                   nginx's own files; serve/users/ has a password file per group,
                               serve/access.log the requests
      inside/                  directories that chroots can write to; closed to other users
        distfiles/             DISTDIR, shared by all chroots
        restricted/NAME/       DISTDIR of a chroot that is in groups
        builds/NAME/KEY/       PKGDIR of one build, kept until a build with another key starts
        logs/NAME/RUN/         PORTAGE_LOGDIR: one log per package
      work/                    temporary upper layers of running sandboxes
      trash/                   files that are being deleted
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

INSTALL_ROOTS = ("gate", "client", "members")  # the tasks that keep one for each chroot
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+_.-]*")


def pointer(channel: str = "", *, previous: bool = False) -> str:
    """The link in a binhost to the present or previous generation of a channel.

    "" is the channel that publish:NAME publishes to.
    """
    if not channel:
        return "previous" if previous else "current"
    return f"channel.{channel}" + (".previous" if previous else "")


@dataclass(frozen=True)
class Layout:
    """All paths of one site; absolute and normalised."""

    site: Path
    state: Path
    run: str = field(
        default="", compare=False
    )  # the name of this run; "": logs lie in logs/ itself

    @property
    def config(self) -> Path:
        return self.site / "config.toml"

    @property
    def lock(self) -> Path:
        return self.site / "config.lock"

    @property
    def hooks(self) -> Path:
        return self.site / "hooks"

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

    def manual_changes(self, name: str) -> Path:
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
    def sizes(self) -> Path:
        return self.state / "sizes.json"

    def large_trees(self) -> list[Path]:
        """Every tree of many files that is never written again under its name."""
        patterns = ("exports/[!.]*/", "gate/*/[!.]*/", "layers/*/[!.]*/", "seeds/[!.]*/")
        return [path for pattern in patterns for path in sorted(self.state.glob(pattern))]

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

    def task_lock(self, task: str) -> Path:
        return self.locks / _one_name(task.replace(":", "."))

    def upstream_update(self, task: str) -> Path:
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

    def extraction_lock(self, digest: str) -> Path:
        """The lock for extracting the stage of that (short) digest."""
        return self.state / "locks" / f"unpack.{_one_name(digest[:32])}"

    def layer(self, name: str, identity: str) -> Path:
        return self.state / "layers" / _one_name(name) / _one_name(identity[:32])

    def etc(self, name: str) -> Path:
        return self.state / "etc" / _one_name(name)

    @property
    def plans(self) -> Path:
        return self.state / "plans"

    def plan(self, name: str, digest: str) -> Path:
        return self.plans / _one_name(name) / f"{_one_name(digest)}.json"

    def builds(self, name: str) -> Path:
        return self.inside / "builds" / _one_name(name)

    def build(self, name: str, key: str) -> Path:
        return self.builds(name) / _one_name(key[:32])

    def package_logs(self, name: str) -> Path:
        return self.inside / "logs" / _one_name(name) / self.run

    def package_logs_of(self, run: str) -> list[Path]:
        """The directories of a run in the PORTAGE_LOGDIRs of all chroots."""
        return sorted((self.inside / "logs").glob(f"*/{_one_name(run)}"))

    def binpkgs(self, name: str) -> Path:
        return self.state / "sets" / _one_name(name)

    @property
    def store(self) -> Path:
        return self.state / "store"

    @property
    def store_incoming(self) -> Path:
        return self.store / "incoming"

    def store_entry(self, key: str) -> Path:
        return self.store / "entries" / f"{_one_name(key)}.json"

    def store_output(self, digest: str) -> Path:
        return self.store / "outputs" / f"{_one_name(digest)}.json"

    def store_package(self, sha512: str) -> Path:
        return self.store / "packages" / _one_name(sha512)

    def store_inputs(self, sha512: str) -> Path:
        return self.store / "inputs" / f"{_one_name(sha512)}.json"

    def store_layer(self, identity: str) -> Path:
        return self.store / "layers" / _one_name(identity)

    def store_listing(self, identity: str) -> Path:
        return self.store / "layers" / f"{_one_name(identity)}.listing"

    def store_verified(self, identity: str) -> Path:
        return self.store / "layers" / f"{_one_name(identity)}.verified"

    @property
    def flat_layers(self) -> Path:
        return self.store / "flat"

    @property
    def build_history(self) -> Path:
        return self.state / "build-history.json"

    def failed_buildroots(self, name: str) -> Path:
        return self.state / "failed" / _one_name(name)

    def failed_buildroot(self, name: str, category: str, pf: str) -> Path:
        return self.failed_buildroots(name) / _one_name(category) / _one_name(pf)

    def store_numbers(self, category: str, pf: str) -> Path:
        return self.store / "numbers" / _one_name(category) / _one_name(pf)

    def built_plan(self, chroot: str) -> Path:
        return self.store / "own" / _one_name(chroot) / "plan.json"

    def own_inputs(self, chroot: str, category: str, package: str, slot: str) -> Path:
        # no name of a package has a dot (PMS 3.1.2), so the two are never mixed up
        name = f"{_one_name(package)}.{_one_name(slot)}.json"
        return self.store / "own" / _one_name(chroot) / _one_name(category) / name

    def install_root(self, task: str, name: str) -> Path:
        """The packages that a task (one of INSTALL_ROOTS) has installed for chroot `name`."""
        return self.state / _one_name(task) / _one_name(name)

    def binhost(self, name: str) -> Path:
        return self.binhosts / _one_name(name)


def _one_name(text: str) -> str:
    """Check that a name is one path component; config and lock were validated before."""
    if not _SAFE.fullmatch(text):
        raise ValueError(f"not a file name: {text!r}")
    return text
