"""Fetching for a chroot in groups: restricted files, from the site's own mirror, by a password.

It happens before the build, in a separate sandbox from the seed, where no phase of an ebuild runs
as root. The password is temporary, and the build never has one. The files go to a DISTDIR that no
other chroot sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.chroot import sandboxes
from tasks.flow import etc
from tasks.records import Inputs
from tasks.site import Chroot
from tasks.system.notes import note
from tasks.system.sandbox import Bind


@dataclass(frozen=True)
class Distdir:
    """The DISTDIR of a chroot: mounts, variables, and the folder that it can write to."""

    folder: Path
    binds: tuple[Bind, ...]
    variables: dict[str, str] = field(default_factory=dict)


def distdir(chroot: Chroot) -> Distdir:
    """The shared DISTDIR; a chroot in a group has its own beside it (PORTAGE_RO_DISTDIRS)."""
    from tasks.portage import etc_portage

    layout = chroot.layout
    shared, target = str(layout.distfiles), etc_portage.DISTDIR
    if not chroot.config.groups:
        return Distdir(layout.distfiles, (Bind(shared, target, writable=True),))
    own, beside = layout.restricted_distfiles(chroot.name), f"{target}.shared"
    return Distdir(
        own,
        (Bind(str(own), target, writable=True), Bind(shared, beside)),
        {"PORTAGE_RO_DISTDIRS": beside},
    )


def fetch(chroot: Chroot, inputs: Inputs, binds: Sequence[Bind], log: Path) -> None:
    """Fetch the distfiles for the build of a chroot in groups; without groups, do nothing.

    `binds` are those of the build. Raises BinmillError for files that no server has.
    """
    from tasks.portage import emerge
    from tasks.serve import policy
    from tasks.serve.ephemeral import (
        CREDENTIALS,
        FETCH_COMMAND,
        RESUME_COMMAND,
        ephemeral_server,
    )

    groups = chroot.config.groups
    if not groups:
        return
    site, name = chroot.site, chroot.name
    note("fetch-begins", chroot=name, groups=groups)
    locations = [policy.mirror_location(group) for group in groups]
    with (
        chroot.workspace("fetch") as space,
        ephemeral_server(
            locations, {name: groups}, site.layout.state, space, site.config.serve.worker
        ) as server,
    ):
        server.write_credentials(name, space / "access")
        local = [f"{server.url}/{location.path}" for location in locations]
        inside = sandboxes.from_seed(
            chroot,
            inputs,
            space,
            files=etc.portage_files(chroot, local=local),
            network=True,
            binds=(*binds, Bind(str(space / "access"), CREDENTIALS)),
            variables={
                **distdir(chroot).variables,
                # root fetches, since `portage` cannot read the password
                "FEATURES": "-userfetch",
                "FETCHCOMMAND": FETCH_COMMAND,
                "RESUMECOMMAND": RESUME_COMMAND,
            },
        )
        emerge.fetch(
            inside,
            chroot.own.packages,
            site.config.build,
            log,
            groups[0],
        )
