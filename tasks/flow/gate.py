"""gate: nothing is published that a client could not install."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.flow import candidate, etc, signing
from tasks.records import BINPKGS, CANDIDATE, SEED, GateRecord, Inputs
from tasks.site import Chroot, Site
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.portage.index import Stanza
    from tasks.system.sandbox import Sandbox


def check_candidate(chroot: Chroot, inputs: Inputs) -> GateRecord:
    """Compare a candidate with its set and install all of it in a fresh chroot, without network.

    Raises BinmillError that lists every violation.
    """
    from tasks.publish import gate, published

    number = inputs[CANDIDATE(chroot.name)].generation
    folder = published.place(chroot.binhost, number)
    log = chroot.log("gate")
    views = stanzas_of(folder)
    every = {stanza["PATH"]: stanza for stanzas in views.values() for stanza in stanzas}
    wrong = [*licences(chroot.site, views), *_holes(chroot, inputs, list(every.values()))]
    with chroot.workspace("gate") as space:
        client = _client(chroot, inputs, folder, list(views), space)
        wrong += _clashes(chroot, inputs, folder, views, client)
        if not wrong:
            cpvs = [stanza["CPV"] for stanza in every.values()]
            wrong = gate.install(client, chroot.own.packages, cpvs, log)
    if wrong:
        raise gate.refusal(chroot.name, number, wrong, log)
    note("gate-passed", chroot=chroot.name, packages=len(every), number=number)
    return GateRecord(number, len(every))


def stanzas_of(folder: Path) -> dict[str, list[Stanza]]:
    """The index of each view of a generation, by the view's folder name."""
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.publish import published

    return {
        view: list(index.read(folder / view / INDEX))[1:]
        for view in published.facts_in(folder)["views"]
    }


def licences(site: Site, views: dict[str, list[Stanza]]) -> list[str]:
    """The packages in a view that [access] does not allow its group."""
    from tasks.config.access import Access
    from tasks.serve import policy

    access = site.config.access
    if access == Access():
        return []
    return [
        f"licence: {cpv} may not be given to {policy.group_of_segment(view)}"
        for view, stanzas in views.items()
        for cpv in policy.forbidden_packages(stanzas, policy.group_of_segment(view), access)
    ]


def _holes(chroot: Chroot, inputs: Inputs, stanzas: list[Stanza]) -> list[str]:
    """The packages of the set that are in no view, except those withheld from all groups."""
    from tasks.publish import gate

    record = inputs[BINPKGS(chroot.name)]
    withheld = set(candidate.withheld(chroot, record))
    return gate.holes([each for each in record.packages if each.path not in withheld], stanzas)


def _clashes(
    chroot: Chroot,
    inputs: Inputs,
    folder: Path,
    views: dict[str, list[Stanza]],
    client: Sandbox,
) -> list[str]:
    """Sonames that nothing provides, and files that two packages install."""
    from tasks.portage import gpkg
    from tasks.publish import gate

    seed = chroot.layout.seed(inputs[SEED(chroot.seed)].sha512)
    where = {stanza["PATH"]: view for view, stanzas in views.items() for stanza in stanzas}
    every = {stanza["PATH"]: stanza for stanzas in views.values() for stanza in stanzas}
    stanzas = list(every.values())
    wrong = gate.unmet(stanzas, gate.of_seed(seed, stanzas))
    collisions = gate.collisions(
        {stanza["CPV"]: gpkg.files(folder / where[path] / path) for path, stanza in every.items()}
    )
    asked = client.workspace / "asked"
    left = gate.not_blocked(collisions, stanzas, lambda words: gate.blockers(client, asked, words))
    return wrong + [gate.worded(each) for each in left]


def _client(chroot: Chroot, inputs: Inputs, folder: Path, views: list[str], space: Path) -> Sandbox:
    """A fresh chroot from the seed, set up as a client, with the candidate and no network."""
    from tasks.publish import client, gate
    from tasks.system.sandbox import Bind

    (space / "asked").mkdir()
    shutil.copy(gate.PROGRAM, space / "asked")
    return sandboxes.from_seed(
        chroot,
        inputs,
        space,
        files=etc.portage_files(
            chroot,
            features=client.FEATURES,
            variables=client.VARIABLES,
            binrepos=gate.binrepos(views),
        ),
        trusted=signing.signing_key(chroot.site),
        binds=(
            Bind(str(folder), gate.CANDIDATE),
            Bind(str(space / "asked"), gate.INSIDE),
        ),
    )
