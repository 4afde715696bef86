"""Signing in a sandbox over the verified seed, in which no ebuild has run; verified outside."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.portage.keyring import PublicKey
from tasks.records import Inputs
from tasks.site import Chroot, Site
from tasks.system.files import write_atomic

if TYPE_CHECKING:
    from tasks.system.gpgv import Role
    from tasks.system.sandbox import Sandbox


def signing_key(site: Site) -> PublicKey:
    """The public half of the signing key; raises HostLacks where it is missing or cannot sign."""
    from tasks.publish import sign

    key = site.config.binhost.signing_key
    armored = sign.public_key(site.signing_home, key)
    assert key is not None  # noqa: S101 - public_key has checked it
    return PublicKey(armored, key)


def sign_packages(
    chroot: Chroot, inputs: Inputs, folder: Path, paths: Sequence[str], space: Path
) -> Path:
    """Make signed and verified copies of packages of a set in a workspace; returns their folder."""
    from tasks.publish import sign

    role = _role(chroot.site, space)
    copy = space / "packages"
    copy.mkdir()
    for path in paths:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / path, copy / path)
    if paths:
        sandbox = _sandbox(chroot, inputs, copy, space)
        sign.sign_packages(sandbox, copy, paths, chroot.log("candidate"))
    sign.verify_packages([copy / path for path in paths], role)
    return copy


def sign_beside(chroot: Chroot, inputs: Inputs, space: Path, files: Sequence[Path]) -> None:
    """Sign files, and put each signature beside its file once it is verified."""
    from tasks.publish import sign
    from tasks.publish.release_manifest import SIGNATURE
    from tasks.system.gpgv import verify_detached

    role = _role(chroot.site, space)
    folder = space / "indexes"
    folder.mkdir()
    copies = {file: folder / str(number) for number, file in enumerate(files)}
    for file, copy in copies.items():
        shutil.copy2(file, copy)
    sandbox = _sandbox(chroot, inputs, folder, space)
    names = [copy.name for copy in copies.values()]
    sign.sign_files(sandbox, folder, names, role.fingerprints[0], chroot.log("candidate"))
    for file, copy in copies.items():
        signature = copy.with_name(copy.name + SIGNATURE)
        with file.open("rb") as stream:
            verify_detached(role, stream, file.name, signature)
        write_atomic(file.with_name(file.name + SIGNATURE), signature.read_bytes())


def _role(site: Site, space: Path) -> Role:
    """The role by which signatures are verified; its key file lies in the workspace."""
    from tasks.system.gpgv import Role

    key = signing_key(site)
    write_atomic(space / "key.asc", key.armored)
    return Role("binhost", space / "key.asc", (key.fingerprint,))


def _sandbox(chroot: Chroot, inputs: Inputs, packages: Path, space: Path) -> Sandbox:
    """A throwaway layer over the seed; only the packages and the key's home are mounted in it."""
    from tasks.portage import etc_portage
    from tasks.publish import sign
    from tasks.system.sandbox import Bind

    site = chroot.site
    variables = sign.variables(str(site.config.binhost.signing_key))
    return sandboxes.from_seed(
        chroot,
        inputs,
        space,
        files=etc_portage.files(site.config, chroot.name, features=(), variables=variables),
        binds=(
            Bind(str(site.signing_home), sign.KEY_HOME, writable=True),
            Bind(str(packages), sign.PACKAGES, writable=True),
            Bind(str(sign.PROGRAM), sign.PROGRAM_INSIDE),
        ),
    )
