"""client: install the published packages in a client, over HTTP, or upgrade to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.flow import bundles, etc, installations
from tasks.portage.keyring import PublicKey
from tasks.records import PUBLISH, ClientRecord, Inputs
from tasks.site import Chroot
from tasks.system.files import write_atomic
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.flow.installations import Installation
    from tasks.publish.served import View
    from tasks.system.sandbox import Sandbox


def install_published(chroot: Chroot, inputs: Inputs) -> ClientRecord:
    """Install a chroot's packages in a client, over HTTP, set up from its bundle.

    That is a fresh one, or the client of an earlier generation, which is upgraded. It uses the
    view with most packages.
    """
    from tasks.publish import bundle, client, generation
    from tasks.publish.served import View
    from tasks.serve import policy
    from tasks.serve.nginx_process import serving

    layout, name = chroot.layout, chroot.name
    current = inputs[PUBLISH(name)]
    view = fullest(current.views)
    group = policy.group_of_segment(view)
    path = policy.binhost_path(chroot.site.config.access, name, group)
    folder = generation.folder_of(chroot.binhost, current.generation) / view
    files = bundle.unpack((folder / bundle.NAME).read_bytes())
    conf = f"{bundle.PORTAGE}binrepos.conf"
    binrepos = {path: data.decode() for path, data in files.items() if path.startswith(conf)}
    installation = begin(chroot, inputs, "client", view, _portage_files(chroot) | binrepos)
    # on loopback, for the length of this block, and for this client: without a password
    location = replace(policy.binhost_location(name, group, path), group=policy.PUBLIC)
    worker = chroot.site.config.serve.worker
    with (
        chroot.workspace("client") as space,
        serving([location], layout.state, space / "nginx", worker=worker) as server,
    ):
        sandbox = installation.over(_sandbox(chroot, inputs, files, server.url, space))
        url = f"{server.url}/{path}"
        client.check(sandbox, url, name, group, _key(files).fingerprint)
        installed = install(installation, sandbox, View(url))
    number, source = current.generation, installation.source
    code = "client-upgraded" if source else "client-installed"
    note(code, group=group, packages=len(installed), chroot=name, number=number, source=source)
    return ClientRecord(number, tuple(installed), installation.upgraded_from)


def begin(
    chroot: Chroot, inputs: Inputs, task: str, view: str, settings: Mapping[str, str]
) -> Installation:
    """Decide whether a client of a view is a fresh one; see installations.begin."""
    from tasks.flow.gate import stanzas_of
    from tasks.publish import generation

    number = inputs[PUBLISH(chroot.name)].generation
    stanzas = stanzas_of(generation.folder_of(chroot.binhost, number))[view]
    return installations.begin(chroot, inputs, task, number, stanzas, {**settings, "view": view})


def install(installation: Installation, client: Sandbox, view: View) -> list[str]:
    """Install a chroot's packages in a client, or upgrade them; returns those installed (CPV).

    The client is kept. Packages that an upgrade does not fetch are fetched without Portage.
    """
    from tasks.publish import client as clients
    from tasks.publish import served

    chroot, log = installation.chroot, installation.log
    if installation.old is None:
        installed = clients.install(client, chroot.own.packages, log)
    else:
        cpvs = installation.same_slots(client)
        if violations := installation.upgrade(client, cpvs):
            with log.open("a", encoding="utf-8") as out:
                out.writelines(f"client: {violation}\n" for violation in violations)
            raise clients.install_failed(client, str(violations[0]), log)
        served.verify(view, installation.stanzas)
        installed = installation.installed(client)
    installation.keep(client, installed)
    return installed


def _sandbox(
    chroot: Chroot, inputs: Inputs, files: Mapping[str, bytes], url: str, space: Path
) -> Sandbox:
    """A client from the seed, with its own settings and everything else from its bundle.

    The one difference is the URL, which points at this host during the test.
    """
    from tasks.publish import bundle, client
    from tasks.system.sandbox import Bind

    portage = {
        path: text
        for path, text in _portage_files(chroot).items()
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


def _portage_files(chroot: Chroot) -> dict[str, str]:
    from tasks.publish import client

    return etc.portage_files(chroot, features=client.FEATURES, variables=client.VARIABLES)


def _key(files: Mapping[str, bytes]) -> PublicKey:
    return PublicKey(files["key.asc"], files["fingerprint"].decode().strip())


def fullest(views: Mapping[str, int]) -> str:
    """The view that has most packages; of two that have as many, the public one."""
    return max(sorted(views), key=lambda view: (views[view], view == "public"))
