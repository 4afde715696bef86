"""The clients' bundles of a candidate: what they say of this site."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tasks import records
from tasks.site import Site
from tasks.system.http import public


def inputs(site: Site, name: str) -> dict[str, Any]:
    """What of config.toml stands in the bundles of a chroot."""
    config = site.config
    urls = {other: config.overlays[other].url for other in config.effective(name).overlays}
    return {
        "url": url(site),
        "channels": config.binhost.channels,
        "tree": for_clients(config.tree.remote or ""),
        "overlays": {other: for_clients(where) for other, where in urls.items()},
    }


def for_clients(remote: str) -> str:
    """A git remote as it may be told to everybody: without a password; "" for a path of ours."""
    if remote.startswith(("/", ".")) or ":" not in remote:
        return ""
    if remote.startswith("ssh://"):  # its user is not a secret, and wanted
        return re.sub(r"^ssh://([^/@:]*)(:[^/@]*)?@", r"ssh://\1@", remote)
    return public(remote)


def url(site: Site) -> str:
    """Under what clients reach the binhosts, without a slash at its end."""
    table = site.config.binhost
    scheme = "https" if site.config.serve.certificate else "http"
    return (table.url or f"{scheme}://{table.listen}").rstrip("/")


def bundles(site: Site, name: str, views: Iterable[str]) -> dict[str, bytes]:
    """The bundle of each view of a chroot, by the view's folder name."""
    from tasks.publish import bundle, sign
    from tasks.serve import policy

    config, told = site.config, inputs(site, name)
    key = str(config.binhost.signing_key)
    exported = sign.public_key(site.signing_home, key)
    tree = records.read(site.layout, "tree")
    repos = [bundle.Repo(config.tree.name, tree["commit"], tree["tag"], told["tree"])]
    for other in config.effective(name).overlays:
        commit = records.read(site.layout, f"overlay:{other}")["commit"]
        repos.append(bundle.Repo(other, commit, url=told["overlays"][other]))

    def address(group: str, channel: str = "") -> str:
        return f"{told['url']}/{policy.path_of(config.access, name, group, channel)}"

    made = {}
    for view in views:
        group = policy.as_group(view)
        place = bundle.Place(
            name,
            group,
            policy.path_of(config.access, name, group),
            address(group),
            {channel: address(group, channel) for channel in config.binhost.channels},
        )
        files = bundle.files(place, repos, str(config.effective(name).profile), exported, key)
        made[view] = bundle.packed(files, tree["timestamp"])
    return made
