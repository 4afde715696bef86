"""members: a group's packages are installed by its members and refused to all others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.flow import client, ephemeral, etc, signing
from tasks.records import PUBLISH, AccessTestRecord, Inputs
from tasks.site import Chroot
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.flow.ephemeral import Admission
    from tasks.serve.policy import Location
    from tasks.system.sandbox import Sandbox

_PORTAGE = 250  # the gid of `portage` in every Gentoo stage


def prove_access(chroot: Chroot, inputs: Inputs) -> AccessTestRecord:
    """Install a chroot's packages over TLS as a member of the group that has all of them.

    Before that, a client without a password and one of all other groups must be refused. Raises
    BinmillError for a member that cannot install, or another client that can.
    """
    from tasks.publish import client as clients
    from tasks.serve import policy

    current = inputs[PUBLISH(chroot.name)]
    group = policy.group_of_segment(client.fullest(current.views))
    if group == policy.PUBLIC:
        note("access-public", chroot=chroot.name)
        return AccessTestRecord(current.generation, group, (), ())
    location = policy.binhost_location(chroot.name, group)
    others = [other for other in chroot.site.config.access.groups if other != group]
    users = {"member": [group], **({"outsider": others} if others else {})}
    wanted, log = chroot.own.packages, chroot.log("members")
    with (
        chroot.workspace("members") as space,
        ephemeral.admitting(chroot.site, [location], users, space) as server,
    ):
        refused = ("stranger", *(user for user in users if user != "member"))
        for user in refused:
            with _client(chroot, inputs, location, server, user) as sandbox:
                clients.expect_refusal(sandbox, user, wanted, log)
        with _client(chroot, inputs, location, server, "member") as sandbox:
            installed = clients.install(sandbox, wanted, log)
    note(
        "access-proven",
        group=group,
        packages=len(installed),
        chroot=chroot.name,
        refused=list(refused),
    )
    return AccessTestRecord(current.generation, group, tuple(installed), refused)


@contextmanager
def _client(
    chroot: Chroot, inputs: Inputs, location: Location, server: Admission, user: str
) -> Iterator[Sandbox]:
    """A fresh client from the seed, with the password of a user, or with none."""
    from tasks.publish import client as clients
    from tasks.system.sandbox import Bind

    with chroot.workspace(f"members-{user}") as space:
        server.hand_over(user, space / "access", _PORTAGE)
        url = f"{server.url}/{location.path}"
        yield sandboxes.from_seed(
            chroot,
            inputs,
            space,
            files=etc.portage_files(
                chroot,
                features=(),
                variables=clients.VARIABLES,
                binrepos=clients.binrepos(chroot.name, url, ephemeral.FETCH, ephemeral.RESUME),
            ),
            trusted=signing.signing_key(chroot.site),
            network=True,
            binds=(Bind(str(space / "access"), ephemeral.ACCESS),),
        )
