"""client: install what was published, in a fresh client, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tasks import records
from tasks.flow import chroots, etc
from tasks.records import Record
from tasks.site import Site
from tasks.system.terminal import say


def client(site: Site, name: str) -> Record:
    """Install a chroot's packages in a fresh client, from the published binhost over HTTP.

    It sees what the members of one group see: of the group that has most of the packages.
    """
    from tasks.chroot import etc_portage
    from tasks.publish import client as clients
    from tasks.publish import sign
    from tasks.serve import policy
    from tasks.serve.running import serving

    layout = site.layout
    published = records.read(layout, f"publish:{name}")
    group = policy.as_group(fullest(published["views"]))
    # on loopback, for as long as it takes, and for a client of ours: no password is asked
    door = replace(policy.binhost(name, group, name), group=policy.PUBLIC)
    key = site.config.binhost.signing_key
    public = sign.public_key(site.signing_home, key)
    seed = records.read(layout, f"seed:{site.config.seed_of(name)}")
    log = layout.log(f"client:{name}")
    with (
        chroots.workspace(site, f"client-{name}") as space,
        serving([door], layout.state, space / "nginx", worker=site.config.serve.worker) as url,
    ):
        made = etc.portage_files(
            site, name, features=(), variables=clients.VARIABLES,
            binrepos=clients.binrepos(name, f"{url}/{name}"),
        )  # fmt: skip
        link = etc_portage.profile_link(site.config, name)
        etc_portage.write(made, link, space / "etc", layout.trash)
        clients.keyring(public, str(key), space / "etc" / clients.GNUPG)
        inside = chroots.plan(
            site, name, space, network=True, etc=space / "etc", layers=[layout.seed(seed["sha512"])]
        )
        done = clients.install(inside, site.config.chroots[name].packages, log)
    say(f"  a fresh client of {group} installed {len(done)} packages of {name}, "
        f"generation {published['generation']}")  # fmt: skip
    return {"generation": published["generation"], "installed": done}


def fullest(views: Mapping[str, int]) -> str:
    """The view that has most packages; of two that have as many, everybody's."""
    return max(sorted(views), key=lambda view: (views[view], view == "public"))
