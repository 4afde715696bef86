"""binpkgs: from a room to a set of packages; flow/publishing.py goes on from there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tasks import records
from tasks.flow import chroots
from tasks.records import Record
from tasks.site import Site, identity
from tasks.system.files import closed_folder
from tasks.system.terminal import say

_PORTAGE = 250  # the uid and gid of `portage` in every Gentoo stage


def binpkgs(site: Site, name: str) -> Record:
    """Build a chroot's package set with the real emerge and collect every package of it."""
    from tasks.builder import collect
    from tasks.flow import fetching
    from tasks.portage import emerge, etc_portage
    from tasks.publish import sign
    from tasks.system.sandbox import Bind

    layout = site.layout
    sign.public_key(site.signing_home, site.config.binhost.signing_key)  # now, not hours later
    pkgdir = layout.build(name, build_key(site, name))
    chroots.sweep(site, pkgdir.parent, keep={pkgdir})
    if not pkgdir.is_dir():
        _start_pkgdir(site, name, pkgdir)
    logs = layout.package_logs(name)
    closed_folder(layout.inside)
    distdir = fetching.distdir(site, name)
    for folder in {layout.distfiles, distdir.folder, pkgdir, logs}:
        _writable_inside(folder)
    binds = (
        *distdir.binds,
        Bind(str(pkgdir), etc_portage.PKGDIR, writable=True),
        Bind(str(logs), etc_portage.LOGDIR, writable=True),
    )
    log = layout.log(f"binpkgs:{name}")
    say(f"  building in {name}; follow it with: tail -f {log}")
    fetching.fetch(site, name, binds, log)
    with chroots.workspace(site, f"binpkgs-{name}") as space:
        inside = chroots.plan(
            site, name, space, network=True, binds=binds, variables=distdir.variables
        )
        emerge.build(inside, site.config.chroots[name].packages, site.config.build, log)
        made = collect.collect(
            emerge.installed(space / "upper"), pkgdir, layout.binpkgs(name), layout.trash
        )
    say(f"  {name}: {len(made['packages'])} packages in set {made['set'][:12]}")
    if touched := records.read(layout, f"chroot:{name}").get("touched"):
        say(f"  warning: built where somebody has changed {', '.join(touched)} by hand")
        made["touched"] = touched
    return made


def progress(log: Path) -> str:
    """How far a build is, by its log; see emerge.progress."""
    from tasks.portage import emerge

    return emerge.progress(log)


def build_key(site: Site, name: str) -> str:
    """What a build depends on; a PKGDIR is only taken up again by a build of the same key."""
    needs = ["tree", f"chroot:{name}", f"etc:{name}"]
    needs += [f"overlay:{other}" for other in site.config.effective(name).overlays]
    base = site.config.chroots[name].base
    needs += [f"binpkgs:{base}"] if base else []
    inputs = {task: records.read(site.layout, task) for task in needs}
    return identity([inputs, site.config.chroots[name].packages])


def _start_pkgdir(site: Site, name: str, pkgdir: Path) -> None:
    """A new PKGDIR; a stack's begins with its base's packages, which it need not build again.

    Portage numbers builds by what it finds (bintree._allocate_filename_multi): an empty directory
    where a package was published keeps its number from being used again.
    """
    from tasks.publish import published

    before = published.published(site.layout.binhost(name))
    scratch = pkgdir.with_name(f".{pkgdir.name}.tmp")
    scratch.mkdir(parents=True)
    base = site.config.chroots[name].base
    if base:
        held = records.read(site.layout, f"binpkgs:{base}")
        for package in held["packages"]:
            if before.get(package["path"], package["sha512"]) != package["sha512"]:
                continue  # this binhost has another build of that number
            target = scratch / package["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            # a copy, not a link: the chroot can write here, the collected set must not change
            shutil.copy2(set_folder(site, base, held) / package["path"], target)
    for path in before:
        if not (scratch / path).exists():
            (scratch / path).mkdir(parents=True)
    scratch.rename(pkgdir)


def _writable_inside(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, _PORTAGE, _PORTAGE)
    folder.chmod(0o2775)


def set_folder(site: Site, name: str, made: Record) -> Path:
    """Where the collected packages of a record of binpkgs lie."""
    return site.layout.binpkgs(name) / str(made["set"])


def results(site: Site, record: Record, *keys: str) -> list[Path]:
    """The paths below state/ that a record names under `keys`."""
    found: list[Any] = []
    for key in keys:
        found += record[key] if isinstance(record[key], list) else [record[key]]
    return [site.layout.state / part for part in found]
