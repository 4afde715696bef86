"""members: test that members of a group can install its packages, and that others cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.flow import client, etc, signing
from tasks.portage.account import PORTAGE_ID
from tasks.records import PUBLISH, AccessTestRecord, Inputs
from tasks.site import Chroot
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.serve.ephemeral import EphemeralServer
    from tasks.serve.policy import Location
    from tasks.system.sandbox import Sandbox


def prove_access(chroot: Chroot, inputs: Inputs) -> AccessTestRecord:
    """Install a chroot's packages over TLS as a member of the group with the fullest view.

    That is a fresh client, or the member of an earlier generation, which is upgraded. First a
    client without a password and a member of all other groups must be refused. Raises BinmillError
    if the member cannot install, or another client can.
    """
    from tasks.publish import client as clients
    from tasks.publish.served import View
    from tasks.serve import policy
    from tasks.serve.ephemeral import ephemeral_server

    site, packages, log = chroot.site, chroot.own.packages, chroot.log("members")
    current = inputs[PUBLISH(chroot.name)]
    view = client.fullest(current.views)
    group = policy.group_of_segment(view)
    if group == policy.PUBLIC:
        note("access-public", chroot=chroot.name)
        return AccessTestRecord(current.generation, group, (), ())
    location = policy.binhost_location(chroot.name, group)
    installation = client.begin(
        chroot, inputs, "members", view, _portage_files(chroot, f"/{location.path}")
    )
    others = [other for other in site.config.access.groups if other != group]
    users = {"member": [group], **({"outsider": others} if others else {})}
    refused = ("stranger", *(user for user in users if user != "member"))
    with (
        chroot.workspace("members") as space,
        ephemeral_server(
            [location], users, site.layout.state, space, site.config.serve.worker
        ) as server,
    ):
        for user in refused:
            with _client(chroot, inputs, location, server, user) as sandbox:
                clients.expect_refusal(sandbox, user, packages, log)
        url, password = f"{server.url}/{location.path}", server.passwords["member"]
        with _client(chroot, inputs, location, server, "member") as sandbox:
            installed = client.install(
                installation,
                installation.over(sandbox),
                View(url, server.certificate, "member", password),
            )
    source = installation.source
    note(
        "access-proven-by-upgrade" if source else "access-proven",
        group=group,
        packages=len(installed),
        chroot=chroot.name,
        refused=list(refused),
        source=source,
    )
    return AccessTestRecord(
        current.generation, group, tuple(installed), refused, installation.upgraded_from
    )


@contextmanager
def _client(
    chroot: Chroot, inputs: Inputs, location: Location, server: EphemeralServer, user: str
) -> Iterator[Sandbox]:
    """A fresh client from the seed, with the password of a user if there is such a user."""
    from tasks.serve.ephemeral import CREDENTIALS
    from tasks.system.sandbox import Bind

    with chroot.workspace(f"members-{user}") as space:
        server.write_credentials(user, space / "access", PORTAGE_ID)
        url = f"{server.url}/{location.path}"
        yield sandboxes.from_seed(
            chroot,
            inputs,
            space,
            files=_portage_files(chroot, url),
            trusted=signing.signing_key(chroot.site),
            network=True,
            binds=(Bind(str(space / "access"), CREDENTIALS),),
        )


def _portage_files(chroot: Chroot, url: str) -> dict[str, str]:
    from tasks.publish import client as clients
    from tasks.serve.ephemeral import FETCH_COMMAND, RESUME_COMMAND

    return etc.portage_files(
        chroot,
        features=(),
        variables=clients.VARIABLES,
        binrepos=clients.binrepos(chroot.name, url, FETCH_COMMAND, RESUME_COMMAND),
    )
