"""The sandbox of a chroot as a pure plan: the layers, mounts and variables that are seen inside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.portage.etc_portage import REPOS
from tasks.records import Mount
from tasks.system.sandbox import Bind, Sandbox

RESOLVER = "/etc/resolv.conf"  # the host's; often a link
# The whole environment of a command inside, whatever the caller's is.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "SHELL": "/bin/bash",
    "TERM": "dumb",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}


def plan(
    name: str,
    layers: Sequence[Path],
    workspace: Path,
    *,
    repos: Mapping[str, Path],
    etc: Path | None,
    binds: Sequence[Bind] = (),
    network: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Sandbox:
    """Plan the sandbox of a chroot; `repos` maps repository names to exported commits."""
    mounts = [Bind(str(path), f"{REPOS}/{repo}") for repo, path in sorted(repos.items())]
    if etc is not None:
        mounts.append(Bind(str(etc), "/etc/portage"))
    resolver = os.path.realpath(RESOLVER)
    if network and Path(resolver).is_file():
        mounts.append(Bind(resolver, "/etc/resolv.conf"))
    return Sandbox(
        hostname=name,
        layers=tuple(layers),
        workspace=workspace,
        binds=(*mounts, *binds),
        environment={**ENVIRONMENT, **(variables or {})},
        network=network,
    )


def mount_table(mountinfo: str) -> tuple[Mount, ...]:
    """The mount table as seen inside (proc(5), mountinfo), without what differs between hosts."""
    table = []
    for line in mountinfo.splitlines():
        fields, kind = (part.split(" ") for part in line.split(" - ", 1))
        access = "ro" if "ro" in fields[5].split(",") else "rw"
        flags = [f for f in ("nosuid", "nodev", "noexec") if f in fields[5].split(",")]
        kind_name = "bind" if fields[3] != "/" else kind[0]
        table.append(Mount(fields[4], kind_name, ",".join([access, *flags])))
    return tuple(sorted(table, key=lambda mount: mount.at))
