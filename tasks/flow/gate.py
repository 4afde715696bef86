"""gate: nothing is published that a client could not install."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import records
from tasks.flow import candidate, chroots, etc
from tasks.records import Record
from tasks.site import Site
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.portage.index import Stanza
    from tasks.system.sandbox import Sandbox


def gate(site: Site, name: str) -> Record:
    """Hold a candidate against its plan and install all of it in a fresh chroot, without network.

    Raises BinmillError that lists all that is wrong.
    """
    from tasks.publish import gate as gates
    from tasks.publish import published

    layout = site.layout
    number = records.read(layout, f"candidate:{name}")["generation"]
    folder = published.place(layout.binhost(name), number)
    log = layout.log(f"gate:{name}")
    views = stanzas_of(folder)
    every = {stanza["PATH"]: stanza for stanzas in views.values() for stanza in stanzas}
    wrong = [*licences(site, views), *_holes(site, name, list(every.values()))]
    with chroots.workspace(site, f"gate-{name}") as space:
        room = _room(site, name, folder, list(views), space)
        wrong += _clashes(site, name, folder, views, room)
        if not wrong:
            cpvs = [stanza["CPV"] for stanza in every.values()]
            wrong = gates.install(room, site.config.chroots[name].packages, cpvs, log)
    if wrong:
        raise gates.refusal(name, number, wrong, log)
    say(f"  {name}: all {len(every)} packages of candidate {number} were installed offline")
    return {"generation": number, "packages": len(every)}


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
    """The packages in a view whose group may not have them."""
    from tasks.config.access import Access
    from tasks.serve import policy

    access = site.config.access
    if access == Access():
        return []
    return [
        f"licence: {cpv} may not be given to {policy.as_group(view)}"
        for view, stanzas in views.items()
        for cpv in policy.misplaced(stanzas, policy.as_group(view), access)
    ]


def _holes(site: Site, name: str, stanzas: list[Stanza]) -> list[str]:
    """The packages of the set that are in no view, those aside that nobody may have."""
    from tasks.publish import gate as gates

    made = records.read(site.layout, f"binpkgs:{name}")
    nobodys = set(candidate.nobodys(site, name, made))
    planned = [package for package in made["packages"] if package["path"] not in nobodys]
    return gates.holes(planned, stanzas)


def _clashes(
    site: Site, name: str, folder: Path, views: dict[str, list[Stanza]], room: Sandbox
) -> list[str]:
    """Sonames that nothing provides, and files that two packages have."""
    from tasks.portage import gpkg
    from tasks.publish import gate as gates

    seed = records.read(site.layout, f"seed:{site.config.seed_of(name)}")
    where = {stanza["PATH"]: view for view, stanzas in views.items() for stanza in stanzas}
    every = {stanza["PATH"]: stanza for stanzas in views.values() for stanza in stanzas}
    stanzas = list(every.values())
    wrong = gates.unmet(stanzas, gates.of_seed(site.layout.seed(seed["sha512"]), stanzas))
    found = gates.collisions(
        {stanza["CPV"]: gpkg.files(folder / where[path] / path) for path, stanza in every.items()}
    )
    asked = room.workspace / "asked"
    left = gates.not_blocked(found, stanzas, lambda words: gates.blockers(room, asked, words))
    return wrong + [gates.worded(each) for each in left]


def _room(site: Site, name: str, folder: Path, views: list[str], space: Path) -> Sandbox:
    """A fresh chroot from the seed, as a client's, with the candidate in it and no network."""
    from tasks.portage import etc_portage
    from tasks.publish import client as clients
    from tasks.publish import gate as gates
    from tasks.publish import sign
    from tasks.system.sandbox import Bind

    layout, key = site.layout, site.config.binhost.signing_key
    public = sign.public_key(site.signing_home, key)
    seed = records.read(layout, f"seed:{site.config.seed_of(name)}")
    made = etc.portage_files(
        site,
        name,
        features=clients.FEATURES,
        variables=clients.VARIABLES,
        binrepos=gates.binrepos(views),
    )
    etc_portage.write(
        made, etc_portage.profile_link(site.config, name), space / "etc", layout.trash
    )
    clients.keyring(public, str(key), space / "etc" / clients.GNUPG)
    (space / "asked").mkdir()
    shutil.copy(gates.PROGRAM, space / "asked")
    room: Sandbox = chroots.plan(
        site,
        name,
        space,
        etc=space / "etc",
        layers=[layout.seed(seed["sha512"])],
        binds=(
            Bind(str(folder), gates.CANDIDATE),
            Bind(str(space / "asked"), gates.INSIDE),
        ),
    )
    return room
