"""The client bundles of a candidate: the part of them that this site decides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.flow import signing
from tasks.records import OVERLAY, TREE, Inputs
from tasks.site import Chroot, Site
from tasks.text import without_password


@dataclass(frozen=True)
class BundleSettings:
    """The settings of config.toml that stand in the bundles of a chroot.

    `url` is the address of the binhosts, `tree` and `overlays` the remotes of the repositories, ""
    for one that clients cannot reach.
    """

    url: str
    channels: list[str]
    tree: str
    overlays: dict[str, str]


def settings(chroot: Chroot) -> BundleSettings:
    """The settings that the bundles of a chroot are made from."""
    config = chroot.site.config
    remotes = {name: config.overlays[name].url for name in chroot.config.overlays}
    return BundleSettings(
        url(chroot.site),
        config.binhost.channels,
        for_clients(config.tree.remote or ""),
        {name: for_clients(remote) for name, remote in remotes.items()},
    )


def for_clients(remote: str) -> str:
    """A git remote without a password; "" for a path on this machine."""
    if remote.startswith(("/", ".")) or ":" not in remote:
        return ""
    if remote.startswith("ssh://"):  # its user is not a secret, and needed
        return re.sub(r"^ssh://([^/@:]*)(:[^/@]*)?@", r"ssh://\1@", remote)
    return without_password(remote)


def url(site: Site) -> str:
    """The address at which clients reach the binhosts, without a slash at its end."""
    table = site.config.binhost
    scheme = "https" if site.config.serve.certificate else "http"
    return (table.url or f"{scheme}://{table.listen}").rstrip("/")


def pack(chroot: Chroot, inputs: Inputs, views: Iterable[str]) -> dict[str, bytes]:
    """The bundle of each view of a chroot, by the view's folder name."""
    from tasks.publish import bundle
    from tasks.serve import policy

    config, clients = chroot.site.config, settings(chroot)
    key = signing.signing_key(chroot.site)
    tree = inputs[TREE()]
    repos = [bundle.Repo(config.tree.name, tree.commit, tree.tag, clients.tree)]
    repos += [
        bundle.Repo(name, inputs[OVERLAY(name)].commit, url=remote)
        for name, remote in clients.overlays.items()
    ]

    def address(group: str, channel: str = "") -> str:
        return f"{clients.url}/{policy.binhost_path(config.access, chroot.name, group, channel)}"

    archives = {}
    for view in views:
        group = policy.group_of_segment(view)
        client_view = bundle.ClientView(
            chroot.name,
            group,
            policy.binhost_path(config.access, chroot.name, group),
            address(group),
            {channel: address(group, channel) for channel in config.binhost.channels},
        )
        files = bundle.files(
            client_view, repos, str(chroot.config.profile), key.armored, key.fingerprint
        )
        archives[view] = bundle.pack(files, tree.timestamp)
    return archives
