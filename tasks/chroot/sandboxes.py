"""The sandboxes of a chroot: its own, and a fresh one from its seed.

Both see the locked repositories; what they read is declared by the task that makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.portage import keyring
from tasks.records import CHROOT, ETC, OVERLAY, SEED, TREE, Inputs, Key
from tasks.site import Chroot

if TYPE_CHECKING:
    from tasks.system.sandbox import Bind, Sandbox


def repository_keys(chroot: Chroot) -> tuple[Key[Any], ...]:
    """The records of the repositories that a chroot sees."""
    return (TREE(), *(OVERLAY(name) for name in chroot.config.overlays))


def seed_keys(chroot: Chroot) -> tuple[Key[Any], ...]:
    """The records that `from_seed` reads."""
    return (SEED(chroot.seed), *repository_keys(chroot))


def own_keys(chroot: Chroot) -> tuple[Key[Any], ...]:
    """The records that `own` reads."""
    return (*repository_keys(chroot), CHROOT(chroot.name), ETC(chroot.name))


def repositories(chroot: Chroot, inputs: Inputs) -> dict[str, str]:
    """The locked commit of each repository that a chroot sees, by name, the main one first."""
    commits = {chroot.site.config.tree.name: inputs[TREE()].commit}
    return commits | {name: inputs[OVERLAY(name)].commit for name in chroot.config.overlays}


def own(
    chroot: Chroot,
    inputs: Inputs,
    space: Path,
    *,
    layers: Sequence[str] | None = None,
    binds: Sequence[Bind] = (),
    network: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Sandbox:
    """The chroot itself: its layers (or those given, below state/) and its /etc/portage.

    Raises BinmillError if the generated /etc/portage was modified.
    """
    from tasks.portage import etc_portage

    record = inputs[ETC(chroot.name)]
    etc = chroot.layout.state / record.path
    etc_portage.check_unmodified(etc, record.files)
    names = inputs[CHROOT(chroot.name)].layers if layers is None else layers
    paths = [chroot.layout.state / layer for layer in names]
    more = _More(binds, network, variables or {})
    return _plan(chroot, inputs, paths, etc, space, more)


def from_seed(
    chroot: Chroot,
    inputs: Inputs,
    space: Path,
    *,
    files: Mapping[str, str],
    trusted: keyring.PublicKey | None = None,
    binds: Sequence[Bind] = (),
    network: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Sandbox:
    """A fresh chroot from the seed, in which nothing of the chroot has run.

    `files` are those of its /etc/portage, by path; with `trusted`, its Portage accepts packages
    that this key signed.
    """
    from tasks.portage import etc_portage

    etc = space / "etc"
    link = etc_portage.profile_link(chroot.site.config, chroot.name)
    etc_portage.write(files, link, etc, chroot.layout.trash)
    if trusted is not None:
        keyring.write(trusted, etc / keyring.FOLDER)
    seed = chroot.layout.seed(inputs[SEED(chroot.seed)].sha512)
    more = _More(binds, network, variables or {})
    return _plan(chroot, inputs, [seed], etc, space, more)


@dataclass(frozen=True)
class _More:
    """Additions of a caller to a sandbox."""

    binds: Sequence[Bind]
    network: bool
    variables: Mapping[str, str]


def _plan(  # noqa: PLR0917
    chroot: Chroot,
    inputs: Inputs,
    layers: Sequence[Path],
    etc: Path,
    space: Path,
    more: _More,
) -> Sandbox:
    from tasks.chroot import sandbox_plan

    repos = repositories(chroot, inputs)
    proxies = chroot.site.proxies if more.network else {}
    return sandbox_plan.plan(
        chroot.name,
        layers,
        space,
        repos={name: chroot.layout.export(commit) for name, commit in repos.items()},
        etc=etc,
        binds=more.binds,
        network=more.network,
        variables={**proxies, **more.variables},
    )
