"""client: install what was published, in a fresh client, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import records
from tasks.errors import Stale
from tasks.flow import bundles, chroots, etc
from tasks.records import Record
from tasks.site import Site
from tasks.system.files import write_atomic
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.system.sandbox import Sandbox


def client(site: Site, name: str) -> Record:
    """Install a chroot's packages in a fresh client, over HTTP, set up from its bundle.

    It sees what the members of one group see: of the group that has most of the packages.
    """
    from tasks.publish import bundle, generation, published
    from tasks.publish import client as clients
    from tasks.serve import policy
    from tasks.serve.nginx_process import serving

    layout = site.layout
    binhost = layout.binhost(name)
    number = generation.current(binhost)
    if number is None:
        raise Stale(f"nothing is published of {name}", f"doit publish:{name}")
    view = fullest(published.facts(binhost, number)["views"])
    group = policy.as_group(view)
    path = policy.path_of(site.config.access, name, group)
    given = bundle.unpacked((published.place(binhost, number) / view / bundle.NAME).read_bytes())
    # on loopback, for as long as it takes, and for a client of ours: no password is asked
    door = replace(policy.binhost(name, group, path), group=policy.PUBLIC)
    log = layout.log(f"client:{name}")
    with (
        chroots.workspace(site, f"client-{name}") as space,
        serving([door], layout.state, space / "nginx", worker=site.config.serve.worker) as here,
    ):
        room = room_of(site, name, given, here, space)
        clients.check(room, f"{here}/{path}", name, group, given["fingerprint"].decode().strip())
        done = clients.install(room, site.config.chroots[name].packages, log)
    say(
        f"  a fresh client of {group} installed {len(done)} packages of {name}, generation {number}"
    )
    return {"generation": number, "installed": done}


def room_of(site: Site, name: str, given: Mapping[str, bytes], here: str, space: Path) -> Sandbox:
    """A chroot from the seed, with what a client has of its own, and all else from its bundle.

    The one thing that is not as it is given is the address: it is that of this host, for now.
    """
    from tasks.portage import etc_portage
    from tasks.publish import bundle
    from tasks.publish import client as clients
    from tasks.system.sandbox import Bind

    layout = site.layout
    own = etc.portage_files(site, name, features=clients.FEATURES, variables=clients.VARIABLES)
    made = {
        path: text
        for path, text in own.items()
        if not path.startswith(("binrepos.conf", "repos.conf"))
    } | {
        path.removeprefix(bundle.PORTAGE): data.decode().replace(bundles.url(site), here)
        for path, data in given.items()
        if path.startswith(bundle.PORTAGE)
    }
    etc_portage.write(
        made, etc_portage.profile_link(site.config, name), space / "etc", layout.trash
    )
    key = given["fingerprint"].decode().strip()
    clients.keyring(given["key.asc"], key, space / "etc" / clients.GNUPG)
    for file, data in given.items():
        write_atomic(space / "bundle" / file, data)
    seed = records.read(layout, f"seed:{site.config.seed_of(name)}")
    room: Sandbox = chroots.plan(
        site,
        name,
        space,
        network=True,
        etc=space / "etc",
        layers=[layout.seed(seed["sha512"])],
        binds=(Bind(str(space / "bundle"), clients.BUNDLE),),
    )
    return room


def fullest(views: Mapping[str, int]) -> str:
    """The view that has most packages; of two that have as many, everybody's."""
    return max(sorted(views), key=lambda view: (views[view], view == "public"))
