"""gate: check that clients can install a candidate before it is published."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.errors import BinmillError
from tasks.flow import candidate, etc, signing
from tasks.records import BINPKGS, CANDIDATE, SEED, GateRecord, Inputs
from tasks.site import Chroot, Site, identity
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.portage.index import Stanza
    from tasks.publish.gate import Violation
    from tasks.publish.install_root import InstallRoot
    from tasks.system.sandbox import Sandbox


def check_candidate(chroot: Chroot, inputs: Inputs) -> GateRecord:
    """Compare a candidate with its set and install all of it in a chroot, without network.

    That is a fresh one, or the install root of an earlier candidate, which is upgraded. Raises
    BinmillError that lists every violation.
    """
    from tasks.publish import gate, generation, install_root
    from tasks.publish.install_root import InstallRoot

    number = inputs[CANDIDATE(chroot.name)].generation
    folder = generation.folder_of(chroot.binhost, number)
    log = chroot.log("gate")
    views = stanzas_of(folder)
    every = {stanza["PATH"]: stanza for stanzas in views.values() for stanza in stanzas}
    violations = forbidden_packages(chroot.site, views)
    violations += _missing_packages(chroot, inputs, list(every.values()))
    wanted = InstallRoot(
        inputs[SEED(chroot.seed)].sha512,
        _settings(chroot, list(views)),
        number,
        {stanza["CPV"]: stanza.get("SHA512", "") for stanza in every.values()},
    )
    old = _root_to_upgrade(chroot, wanted, fresh=bool(inputs.request.options.get("fresh")))
    place = chroot.layout.install_root(chroot.name)
    with chroot.workspace("gate") as space:
        client = _client(chroot, inputs, folder, list(views), space)
        if old:  # from the first command on: what one does is right over the same layers only
            client = replace(client, layers=(*old.paths(place), *client.layers))
        violations += _clashes(chroot, inputs, folder, views, client)
        if not violations and old:
            violations = _upgrade(chroot, client, old, list(every.values()))
        elif not violations:
            violations = gate.install(client, chroot.own.packages, sorted(wanted.packages), log)
        if violations:
            raise gate.refusal(chroot.name, number, violations, log)
        new = replace(wanted, layers=old.layers if old else ())
        install_root.keep(place, new, client.upper, chroot.layout.trash)
    code = "gate-upgraded" if old else "gate-passed"
    source = old.generation if old else 0
    note(code, chroot=chroot.name, packages=len(every), number=number, source=source)
    return GateRecord(number, len(every), source)


def _root_to_upgrade(chroot: Chroot, wanted: InstallRoot, *, fresh: bool) -> InstallRoot | None:
    """The install root of an earlier candidate; None, with a note, where there is none to use."""
    from tasks.publish import install_root

    place = chroot.layout.install_root(chroot.name)
    try:
        old = install_root.read(place)
        if old is None:
            return None
        code = ""
        if fresh:
            code = "gate-fresh-requested"
        elif old.seed != wanted.seed:
            code = "gate-fresh-seed"
        elif old.settings != wanted.settings:
            code = "gate-fresh-settings"
        elif old.upgrades + 1 >= chroot.site.config.binhost.fresh_install_every:
            code = "gate-fresh-due"
        if code:
            note(code, chroot=chroot.name, upgrades=old.upgrades)
            return None
        flaw = next(install_root.flaws(place, old), "")
    except BinmillError as error:
        flaw = error.message
    if flaw:
        note("gate-fresh-damaged", chroot=chroot.name, flaw=flaw)
        return None
    return old


def _upgrade(
    chroot: Chroot, root: Sandbox, old: InstallRoot, stanzas: list[Stanza]
) -> list[Violation]:
    """Upgrade an install root to a candidate as a client does; returns the violations."""
    from tasks.buildroot.union import Union
    from tasks.publish import upgrade

    log, before = chroot.log("gate"), Union(root.layers)
    again = upgrade.changed_files(stanzas, old.packages, before)
    cpvs = sorted(stanza["CPV"] for stanza in stanzas)
    if violations := upgrade.install(root, chroot.own.packages, cpvs, again, log):
        return violations
    after = Union((root.upper, *root.layers))
    gone = sorted(cpv for cpv in old.packages.keys() - cpvs if upgrade.is_installed(after, cpv))
    if gone:
        upgrade.remove(root, gone, log)
        after = Union((root.upper, *root.layers))
    return upgrade.judge(stanzas, before, after)


def _settings(chroot: Chroot, views: list[str]) -> str:
    """A digest of the gate's /etc/portage, and of the key that it trusts."""
    from tasks.portage import etc_portage

    link = etc_portage.profile_link(chroot.site.config, chroot.name)
    key = chroot.site.config.binhost.signing_key
    return identity([_portage_files(chroot, views), link, key])


def stanzas_of(folder: Path) -> dict[str, list[Stanza]]:
    """The index of each view of a generation, by the view's folder name."""
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.publish import generation

    views = generation.load_folder(folder).issue.views
    return {view: list(index.read(folder / view / INDEX))[1:] for view in views}


def forbidden_packages(site: Site, views: dict[str, list[Stanza]]) -> list[Violation]:
    """List the packages in a view that [access] does not allow its group."""
    from tasks.config.access import Access
    from tasks.publish.gate import ForbiddenPackage
    from tasks.serve import policy

    access = site.config.access
    if access == Access():
        return []
    return [
        ForbiddenPackage(cpv, policy.group_of_segment(view))
        for view, stanzas in views.items()
        for cpv in policy.forbidden_packages(stanzas, policy.group_of_segment(view), access)
    ]


def _missing_packages(chroot: Chroot, inputs: Inputs, stanzas: list[Stanza]) -> list[Violation]:
    """List the packages of the set that are in no view, except those withheld from all groups."""
    from tasks.publish import gate

    record = inputs[BINPKGS(chroot.name)]
    withheld = set(candidate.withheld(chroot, record))
    expected = [package for package in record.packages if package.path not in withheld]
    return gate.missing_packages(expected, stanzas)


def _clashes(
    chroot: Chroot,
    inputs: Inputs,
    folder: Path,
    views: dict[str, list[Stanza]],
    client: Sandbox,
) -> list[Violation]:
    """List sonames that nothing provides, and files that two packages install."""
    from tasks.portage import gpkg
    from tasks.publish import gate

    seed = chroot.layout.seed(inputs[SEED(chroot.seed)].sha512)
    where = {stanza["PATH"]: view for view, stanzas in views.items() for stanza in stanzas}
    every = {stanza["PATH"]: stanza for stanzas in views.values() for stanza in stanzas}
    stanzas = list(every.values())
    missing = gate.missing_sonames(stanzas, gate.seed_libraries(seed, stanzas))
    collisions = gate.collisions(
        {
            stanza["CPV"]: gpkg.image_paths(folder / where[path] / path)
            for path, stanza in every.items()
        }
    )
    ask = partial(gate.match_blockers, client, client.workspace / "blockers")
    return [*missing, *gate.without_blockers(collisions, stanzas, ask)]


def _client(chroot: Chroot, inputs: Inputs, folder: Path, views: list[str], space: Path) -> Sandbox:
    """A fresh chroot from the seed, set up as a client, with the candidate and no network."""
    from tasks.publish import gate
    from tasks.system.sandbox import Bind

    (space / "blockers").mkdir()
    shutil.copy(gate.PROGRAM, space / "blockers")
    return sandboxes.from_seed(
        chroot,
        inputs,
        space,
        files=_portage_files(chroot, views),
        trusted=signing.signing_key(chroot.site),
        binds=(
            Bind(str(folder), gate.CANDIDATE),
            Bind(str(space / "blockers"), gate.INSIDE),
        ),
    )


def _portage_files(chroot: Chroot, views: list[str]) -> dict[str, str]:
    from tasks.publish import client, gate

    return etc.portage_files(
        chroot,
        features=(*client.FEATURES, *gate.FEATURES),
        variables=client.VARIABLES,
        binrepos=gate.binrepos(views),
    )
