"""members: what is for one group is installed by its members and refused to all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import records
from tasks.flow import chroots, client, ephemeral, etc
from tasks.records import Record
from tasks.site import Site
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.flow.ephemeral import Admission
    from tasks.serve.policy import Door
    from tasks.system.sandbox import Sandbox

_PORTAGE = 250  # the gid of `portage` in every Gentoo stage


def members(site: Site, name: str) -> Record:
    """Install a chroot's packages over TLS as a member of the group that has all of them.

    Before that, who shows nothing and who is in all other groups are refused. Raises BinmillError
    for a member that cannot install, or another one that can.
    """
    from tasks.publish import client as clients
    from tasks.serve import policy

    published = records.read(site.layout, f"publish:{name}")
    group = policy.as_group(client.fullest(published["views"]))
    told: Record = {"generation": published["generation"], "group": group}
    if group == policy.PUBLIC:
        say(f"  {name}: everybody may have all of it")
        return {**told, "installed": [], "refused": []}
    door = policy.binhost(name, group)
    others = [other for other in site.config.access.groups if other != group]
    known = {"member": [group], **({"outsider": others} if others else {})}
    wanted, log = site.config.chroots[name].packages, site.layout.log(f"members:{name}")
    with (
        chroots.workspace(site, f"members-{name}") as space,
        ephemeral.admitting(site, [door], known, space) as server,
    ):
        tried = ["stranger", *(who for who in known if who != "member")]
        for who in tried:
            with _client(site, name, door, server, who) as room:
                clients.refused(room, who, wanted, log)
        with _client(site, name, door, server, "member") as room:
            done = clients.install(room, wanted, log)
    say(
        f"  a member of {group} installed {len(done)} packages of {name} over TLS; "
        f"refused: {', '.join(tried)}"
    )
    return {**told, "installed": done, "refused": tried}


@contextmanager
def _client(site: Site, name: str, door: Door, server: Admission, who: str) -> Iterator[Sandbox]:
    """A fresh client from the seed, with the password of a user, or with none."""
    from tasks.system.sandbox import Bind

    seed = records.read(site.layout, f"seed:{site.config.seed_of(name)}")
    with chroots.workspace(site, f"members-{name}-{who}") as space:
        server.hand_over(who, space / "access", _PORTAGE)
        _write_etc(site, name, f"{server.url}/{door.path}", space / "etc")
        yield chroots.plan(
            site,
            name,
            space,
            network=True,
            etc=space / "etc",
            layers=[site.layout.seed(seed["sha512"])],
            binds=(Bind(str(space / "access"), ephemeral.ACCESS),),
        )


def _write_etc(site: Site, name: str, url: str, target: Path) -> None:
    """A client's /etc/portage: the binhost, how to fetch from it, and the key that signs."""
    from tasks.portage import etc_portage
    from tasks.publish import client as clients
    from tasks.publish import sign

    key = site.config.binhost.signing_key
    made = etc.portage_files(
        site,
        name,
        features=(),
        variables=clients.VARIABLES,
        binrepos=clients.binrepos(name, url, ephemeral.FETCH, ephemeral.RESUME),
    )
    link = etc_portage.profile_link(site.config, name)
    etc_portage.write(made, link, target, site.layout.trash)
    clients.keyring(sign.public_key(site.signing_home, key), str(key), target / clients.GNUPG)
