"""client: install the published packages in a fresh client, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.flow import bundles, etc
from tasks.portage.keyring import PublicKey
from tasks.records import PUBLISH, ClientRecord, Inputs
from tasks.site import Chroot
from tasks.system.files import write_atomic
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.system.sandbox import Sandbox


def install_published(chroot: Chroot, inputs: Inputs) -> ClientRecord:
    """Install a chroot's packages in a fresh client, over HTTP, set up from its bundle.

    It uses the view with most packages.
    """
    from tasks.publish import bundle, client, generation
    from tasks.serve import policy
    from tasks.serve.nginx_process import serving

    layout, name = chroot.layout, chroot.name
    current = inputs[PUBLISH(name)]
    view = fullest(current.views)
    group = policy.group_of_segment(view)
    path = policy.binhost_path(chroot.site.config.access, name, group)
    folder = generation.folder_of(chroot.binhost, current.generation) / view
    files = bundle.unpack((folder / bundle.NAME).read_bytes())
    # on loopback, for the length of this block, and for this client: without a password
    location = replace(policy.binhost_location(name, group, path), group=policy.PUBLIC)
    worker = chroot.site.config.serve.worker
    with (
        chroot.workspace("client") as space,
        serving([location], layout.state, space / "nginx", worker=worker) as server,
    ):
        sandbox = _sandbox(chroot, inputs, files, server.url, space)
        client.check(sandbox, f"{server.url}/{path}", name, group, _key(files).fingerprint)
        installed = client.install(sandbox, chroot.own.packages, chroot.log("client"))
    note(
        "client-installed",
        group=group,
        packages=len(installed),
        chroot=name,
        number=current.generation,
    )
    return ClientRecord(current.generation, tuple(installed))


def _sandbox(
    chroot: Chroot, inputs: Inputs, files: Mapping[str, bytes], url: str, space: Path
) -> Sandbox:
    """A client from the seed, with its own settings and everything else from its bundle.

    The one difference is the URL, which points at this host during the test.
    """
    from tasks.publish import bundle, client
    from tasks.system.sandbox import Bind

    own = etc.portage_files(chroot, features=client.FEATURES, variables=client.VARIABLES)
    portage = {
        path: text
        for path, text in own.items()
        if not path.startswith(("binrepos.conf", "repos.conf"))
    } | {
        path.removeprefix(bundle.PORTAGE): data.decode().replace(bundles.url(chroot.site), url)
        for path, data in files.items()
        if path.startswith(bundle.PORTAGE)
    }
    for path, data in files.items():
        write_atomic(space / "bundle" / path, data)
    return sandboxes.from_seed(
        chroot,
        inputs,
        space,
        files=portage,
        trusted=_key(files),
        network=True,
        binds=(Bind(str(space / "bundle"), client.BUNDLE),),
    )


def _key(files: Mapping[str, bytes]) -> PublicKey:
    return PublicKey(files["key.asc"], files["fingerprint"].decode().strip())


def fullest(views: Mapping[str, int]) -> str:
    """The view that has most packages; of two that have as many, the public one."""
    return max(sorted(views), key=lambda view: (views[view], view == "public"))
