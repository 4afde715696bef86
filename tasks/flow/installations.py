"""Installations that gate, client and access test keep, and upgrade to the next generation.

One that fails, or that a signal ends, changes nothing: it works in a layer of its own, which is
kept only when the task has succeeded (tasks.publish.install_root).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import BinmillError
from tasks.records import SEED, Inputs
from tasks.site import Chroot, identity
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.portage.index import Stanza
    from tasks.publish.gate import Violation
    from tasks.publish.install_root import InstallRoot
    from tasks.system.sandbox import Sandbox


@dataclass(frozen=True)
class Installation:
    """The packages to install (`stanzas`), and what to upgrade: `old` is None for a fresh one.

    `wanted` has the facts of the new install root, except its packages and layers.
    """

    chroot: Chroot
    place: Path
    log: Path
    stanzas: Sequence[Stanza]
    wanted: InstallRoot
    old: InstallRoot | None

    @property
    def source(self) -> int:
        """The generation that is upgraded; 0 for a fresh installation."""
        return self.old.generation if self.old else 0

    @property
    def upgraded_from(self) -> int:
        """The same, for the record: a run that was killed after `keep` leaves it as it is."""
        if self.old and self.old.generation == self.wanted.generation:
            return self.old.upgraded_from
        return self.source

    def over(self, seed: Sandbox) -> Sandbox:
        """A sandbox of the seed, on top of what is to be upgraded.

        From the first command on: what one does is right over the same layers only.
        """
        layers = self.old.paths(self.place) if self.old else ()
        return replace(seed, layers=(*layers, *seed.layers))

    def upgrade(self, root: Sandbox, cpvs: Sequence[str]) -> list[Violation]:
        """Upgrade to `cpvs` as a client does, without packages that left; returns violations."""
        from tasks.buildroot.union import Union
        from tasks.publish import upgrade

        assert self.old is not None  # noqa: S101
        before = Union(root.layers)
        again = upgrade.changed_files(self.stanzas, self.old.packages, before)
        if violations := upgrade.install(root, self.chroot.own.packages, cpvs, again, self.log):
            return violations
        after = Union((root.upper, *root.layers))
        left = self.old.packages.keys() - {stanza["CPV"] for stanza in self.stanzas}
        gone = sorted(cpv for cpv in left if upgrade.is_installed(after, cpv))
        if gone:
            upgrade.remove(root, gone, self.log)
            after = Union((root.upper, *root.layers))
        wanted = set(cpvs)
        return upgrade.judge([s for s in self.stanzas if s["CPV"] in wanted], before, after)

    def same_slots(self, root: Sandbox) -> list[str]:
        """The packages that take the place of one that is installed."""
        from tasks.buildroot.union import Union
        from tasks.publish import upgrade

        old = self.old.packages if self.old else ()
        return upgrade.same_slots(self.stanzas, old, Union(root.layers))

    def installed(self, root: Sandbox) -> list[str]:
        """The packages (CPV) whose very build is installed, sorted."""
        from tasks.buildroot.union import Union
        from tasks.publish import upgrade

        tree = Union((root.upper, *root.layers))
        return sorted(s["CPV"] for s in self.stanzas if upgrade.has_build(tree, s))

    def keep(self, root: Sandbox, cpvs: Sequence[str]) -> None:
        """Keep what is installed now, with these packages, for the next upgrade."""
        from tasks.publish import install_root

        digests = {stanza["CPV"]: stanza.get("SHA512", "") for stanza in self.stanzas}
        packages = {cpv: digests[cpv] for cpv in cpvs}
        layers = self.old.layers if self.old else ()
        new = replace(
            self.wanted, packages=packages, layers=layers, upgraded_from=self.upgraded_from
        )
        install_root.keep(self.place, new, root.upper, self.chroot.layout.trash)


def begin(  # noqa: PLR0917
    chroot: Chroot,
    inputs: Inputs,
    task: str,
    number: int,
    stanzas: Sequence[Stanza],
    settings: Mapping[str, str],
) -> Installation:
    """Decide whether a task (gate, client, members) upgrades what it has kept.

    `settings` are the files of the client's /etc/portage, without what differs between runs.
    """
    from tasks.portage import etc_portage
    from tasks.publish.install_root import InstallRoot

    config = chroot.site.config
    link = etc_portage.profile_link(config, chroot.name)
    digest = identity([settings, link, config.binhost.signing_key])
    wanted = InstallRoot(inputs[SEED(chroot.seed)].sha512, digest, number, {})
    place = chroot.layout.install_root(task, chroot.name)
    old = _to_upgrade(chroot, place, wanted, fresh=bool(inputs.request.options.get("fresh")))
    return Installation(chroot, place, chroot.log(task), stanzas, wanted, old)


def _to_upgrade(
    chroot: Chroot, place: Path, wanted: InstallRoot, *, fresh: bool
) -> InstallRoot | None:
    """The install root of an earlier generation; None, with a note, where there is none to use."""
    from tasks.publish import install_root

    try:
        old = install_root.read(place)
        if old is None:
            return None
        code = ""
        if fresh:
            code = "install-fresh-requested"
        elif old.seed != wanted.seed:
            code = "install-fresh-seed"
        elif old.settings != wanted.settings:
            code = "install-fresh-settings"
        elif old.upgrades + 1 >= chroot.site.config.binhost.fresh_install_every:
            code = "install-fresh-due"
        if code:
            note(code, chroot=chroot.name, upgrades=old.upgrades)
            return None
        flaw = next(install_root.flaws(place, old), "")
    except BinmillError as error:
        flaw = error.message
    if flaw:
        note("install-fresh-damaged", chroot=chroot.name, flaw=flaw)
        return None
    return old
