"""What a chroot of a group may fetch: from the site's own mirror, by a password of its own.

That is done before the build and in a sandbox of its own, where no phase of an ebuild runs as
root. The password is made for it and is gone when it ends: the build, and what is built, never had
one. What was fetched so lies in a DISTDIR that no other chroot sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.flow import chroots, ephemeral, etc
from tasks.site import Site
from tasks.system.sandbox import Bind
from tasks.system.terminal import say


@dataclass(frozen=True)
class Distdir:
    """Where a chroot's distfiles are: mounts, variables, and the folder that it can write to."""

    folder: Path
    binds: tuple[Bind, ...]
    variables: dict[str, str] = field(default_factory=dict)


def distdir(site: Site, name: str) -> Distdir:
    """The DISTDIR of all, or a chroot's own beside it if it is in a group (PORTAGE_RO_DISTDIRS)."""
    from tasks.portage import etc_portage

    layout = site.layout
    shared, target = str(layout.distfiles), etc_portage.DISTDIR
    if not site.config.effective(name).groups:
        return Distdir(layout.distfiles, (Bind(shared, target, writable=True),))
    own, beside = layout.restricted_distfiles(name), f"{target}.shared"
    return Distdir(
        own,
        (Bind(str(own), target, writable=True), Bind(shared, beside)),
        {"PORTAGE_RO_DISTDIRS": beside},
    )


def fetch(site: Site, name: str, binds: Sequence[Bind], log: Path) -> None:
    """Fetch what the build of a chroot in groups needs, with its password; else do nothing.

    `binds` are those of the build. Raises BinmillError for what is nowhere to be had.
    """
    from tasks.portage import emerge
    from tasks.serve import policy

    groups = site.config.effective(name).groups
    if not groups:
        return
    say(f"  fetching for {name} as a member of {', '.join(groups)}")
    doors = [policy.mirror(group) for group in groups]
    with (
        chroots.workspace(site, f"fetch-{name}") as space,
        ephemeral.admitting(site, doors, {name: groups}, space) as server,
    ):
        server.hand_over(name, space / "access")
        _write_etc(site, name, [f"{server.url}/{door.path}" for door in doors], space / "etc")
        inside = chroots.plan(
            site,
            name,
            space,
            network=True,
            etc=space / "etc",
            binds=(*binds, Bind(str(space / "access"), ephemeral.ACCESS)),
            variables={
                **distdir(site, name).variables,
                # as root: what runs as `portage` cannot read the password
                "FEATURES": "-userfetch",
                "FETCHCOMMAND": ephemeral.FETCH,
                "RESUMECOMMAND": ephemeral.RESUME,
            },
        )
        emerge.fetch(
            inside,
            site.config.chroots[name].packages,
            site.config.build,
            log,
            f"a restricted file is given to it by: doit distfile add FILE --group {groups[0]}",
        )


def _write_etc(site: Site, name: str, local: Sequence[str], target: Path) -> None:
    """The chroot's /etc/portage, with the mirror for as long as it is there."""
    from tasks.portage import etc_portage

    made = etc.portage_files(site, name, local=local)
    etc_portage.write(made, etc_portage.profile_link(site.config, name), target, site.layout.trash)
