"""gate: check that clients can install a candidate before it is published."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.flow import candidate, etc, installations, signing
from tasks.records import BINPKGS, CANDIDATE, SEED, GateRecord, Inputs
from tasks.site import Chroot, Site
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.portage.index import Stanza
    from tasks.publish.gate import Violation
    from tasks.system.sandbox import Sandbox


def check_candidate(chroot: Chroot, inputs: Inputs) -> GateRecord:
    """Compare a candidate with its set and install all of it in a chroot, without network.

    That is a fresh one, or the install root of an earlier candidate, which is upgraded. Raises
    BinmillError that lists every violation.
    """
    from tasks.publish import gate, generation

    number = inputs[CANDIDATE(chroot.name)].generation
    folder = generation.folder_of(chroot.binhost, number)
    views = stanzas_of(folder)
    every = {stanza["PATH"]: stanza for stanzas in views.values() for stanza in stanzas}
    stanzas = list(every.values())
    violations = forbidden_packages(chroot.site, views)
    violations += _missing_packages(chroot, inputs, stanzas)
    settings = _portage_files(chroot, list(views))
    installation = installations.begin(chroot, inputs, "gate", number, stanzas, settings)
    with chroot.workspace("gate") as space:
        client = installation.over(_client(chroot, inputs, folder, list(views), space))
        violations += _clashes(chroot, inputs, folder, views, client)
        cpvs = sorted(stanza["CPV"] for stanza in stanzas)
        if not violations and installation.old:
            violations = installation.upgrade(client, cpvs)
        elif not violations:
            violations = gate.install(client, chroot.own.packages, cpvs, installation.log)
        if violations:
            raise gate.refusal(chroot.name, number, violations, installation.log)
        installation.keep(client, cpvs)
    code = "gate-upgraded" if installation.old else "gate-passed"
    source = installation.source
    note(code, chroot=chroot.name, packages=len(every), number=number, source=source)
    return GateRecord(number, len(every), installation.upgraded_from)


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
    from tasks.publish import contents, gate, install_root

    seed = chroot.layout.seed(inputs[SEED(chroot.seed)].sha512)
    where = {stanza["PATH"]: view for view, stanzas in views.items() for stanza in stanzas}
    every = {stanza["PATH"]: stanza for stanzas in views.values() for stanza in stanzas}
    stanzas = list(every.values())
    missing = gate.missing_sonames(stanzas, gate.seed_libraries(seed, stanzas))
    lists = chroot.layout.install_root("gate", chroot.name) / install_root.CONTENTS
    collisions = gate.collisions(
        {
            stanza["CPV"]: contents.paths(
                lists, folder / where[path] / path, stanza.get("SHA512", "")
            )
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
