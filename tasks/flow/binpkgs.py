"""binpkgs: from a chroot to a set of packages."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from tasks.chroot import sandboxes
from tasks.flow.chroots import sweep
from tasks.records import BINPKGS, CHROOT, BinpkgsRecord, Inputs, Key, plain
from tasks.site import Chroot, identity
from tasks.system.files import private_folder
from tasks.system.notes import note


def build_set(chroot: Chroot, inputs: Inputs) -> BinpkgsRecord:
    """Build a chroot's package set by the driver of [build], and collect every package of it."""
    from tasks.flow import hooks, per_package

    hooks.warn(chroot.layout)
    by_package = chroot.site.config.build.driver == "per-package"
    record = (per_package.build_set if by_package else _build_at_once)(chroot, inputs)
    complete = {"set": record.set, "packages": len(record.packages)}
    folder = chroot.collected(record)
    hooks.run(chroot, "binpkgs", "set-complete", {**complete, "folder": folder})
    return record


def _build_at_once(chroot: Chroot, inputs: Inputs) -> BinpkgsRecord:
    """Build the set with one run of the real emerge."""
    from tasks.flow import fetching
    from tasks.portage import account, emerge, etc_portage, vdb
    from tasks.publish import sign
    from tasks.store import collect
    from tasks.system.sandbox import Bind

    site, layout = chroot.site, chroot.layout
    sign.public_key(site.signing_home, site.config.binhost.signing_key)  # now, not hours later
    pkgdir = layout.build(chroot.name, build_key(chroot, inputs))
    sweep(pkgdir.parent, keep={pkgdir}, trash=layout.trash)
    if not pkgdir.is_dir():
        _start_pkgdir(chroot, inputs, pkgdir)
    logs = layout.package_logs(chroot.name)
    private_folder(layout.inside)
    distdir = fetching.distdir(chroot)
    for folder in {layout.distfiles, distdir.folder, pkgdir, logs}:
        account.writable_folder(folder)
    binds = (
        *distdir.binds,
        Bind(str(pkgdir), etc_portage.PKGDIR, writable=True),
        Bind(str(logs), etc_portage.LOGDIR, writable=True),
    )
    log = chroot.log("binpkgs")
    note("build-begins", chroot=chroot.name, log=log)
    fetching.fetch(chroot, inputs, binds, log)
    with chroot.workspace("binpkgs") as space:
        inside = sandboxes.own(
            chroot, inputs, space, network=True, binds=binds, variables=distdir.variables
        )
        emerge.build(inside, chroot.own.packages, site.config.build, log)
        packages = collect.collect_set(
            vdb.entries(space / "upper"), pkgdir, layout.binpkgs(chroot.name), layout.trash
        )
    modified = inputs[CHROOT(chroot.name)].modified
    record = BinpkgsRecord(collect.set_id(packages), packages, modified)
    note("set-collected", chroot=chroot.name, packages=len(packages), set=record.set)
    if modified:
        note("built-where-modified", chroots=list(modified))
    return record


def progress(log: Path) -> list[str]:
    """The progress of a build by its log: a line for each buildroot, and one about the whole."""
    from tasks.flow import build_events
    from tasks.portage import emerge

    with contextlib.suppress(FileNotFoundError):
        return build_events.progress(log)
    return [emerge.progress(log)]


def build_key(chroot: Chroot, inputs: Inputs) -> str:
    """The digest of all that a build depends on; a PKGDIR is reused by a build of the same key."""
    keys: list[Key[Any]] = list(sandboxes.own_keys(chroot))
    keys += [BINPKGS(chroot.base.name)] if chroot.base else []
    return identity([{key.task: plain(inputs[key]) for key in keys}, chroot.own.packages])


def _start_pkgdir(chroot: Chroot, inputs: Inputs, pkgdir: Path) -> None:
    """Make a new PKGDIR; a stack's starts with its base's packages, which are not built again.

    Portage numbers builds by what is in PKGDIR (bintree._allocate_filename_multi): an empty folder
    in the place of a published package keeps its number from being used again.
    """
    from tasks.publish import published

    before = published.read_paths(chroot.binhost)
    scratch = pkgdir.with_name(f".{pkgdir.name}.tmp")
    scratch.mkdir(parents=True)
    if chroot.base:
        record = inputs[BINPKGS(chroot.base.name)]
        for package in record.packages:
            if before.get(package.path, package.sha512) != package.sha512:
                continue  # this binhost has another build of that number
            target = scratch / package.path
            target.parent.mkdir(parents=True, exist_ok=True)
            # a copy, not a link: the chroot can write here, the collected set must not change
            shutil.copy2(chroot.base.collected(record) / package.path, target)
    for path in before:
        if not (scratch / path).exists():
            (scratch / path).mkdir(parents=True)
    scratch.rename(pkgdir)
