"""binpkgs, publish, client: from a room to packages that a client has installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks import records
from tasks.flow import chroots, etc
from tasks.records import Record
from tasks.site import Site, identity
from tasks.system.files import closed_folder
from tasks.system.terminal import say

_PORTAGE = 250  # the uid and gid of `portage` in every Gentoo stage


def binpkgs(site: Site, name: str) -> Record:
    """Build a chroot's package set with the real emerge and collect every package of it."""
    from tasks.build import collect, emerge
    from tasks.chroot import etc_portage
    from tasks.publish import sign
    from tasks.system.sandbox import Bind

    layout = site.layout
    sign.public_key(_signing_home(site), site.config.binhost.signing_key)  # now, not hours later
    pkgdir = layout.build(name, build_key(site, name))
    chroots.sweep(site, pkgdir.parent, keep={pkgdir})
    if not pkgdir.is_dir():
        _start_pkgdir(site, name, pkgdir)
    logs = layout.package_logs(name)
    closed_folder(layout.inside)
    for folder in (layout.distfiles, pkgdir, logs):
        _writable_inside(folder)
    log = layout.log(f"binpkgs:{name}")
    say(f"  building in {name}; follow it with: tail -f {log}")
    with chroots.workspace(site, f"binpkgs-{name}") as space:
        inside = chroots.plan(
            site, name, space, network=True,
            binds=(
                Bind(str(layout.distfiles), etc_portage.DISTDIR, writable=True),
                Bind(str(pkgdir), etc_portage.PKGDIR, writable=True),
                Bind(str(logs), etc_portage.LOGDIR, writable=True),
            ),
        )  # fmt: skip
        emerge.build(inside, site.config.chroots[name].packages, site.config.build, log)
        made = collect.collect(
            emerge.installed(space / "upper"), pkgdir, layout.binpkgs(name), layout.trash
        )
    say(f"  {name}: {len(made['packages'])} packages in set {made['set'][:12]}")
    return made


def progress(log: Path) -> str:
    """How far a build is, by its log; see emerge.progress."""
    from tasks.build import emerge

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
    from tasks.publish import generation

    published = generation.published(site.layout.binhost(name))
    scratch = pkgdir.with_name(f".{pkgdir.name}.tmp")
    scratch.mkdir(parents=True)
    base = site.config.chroots[name].base
    if base:
        held = records.read(site.layout, f"binpkgs:{base}")
        for package in held["packages"]:
            if published.get(package["path"], package["sha512"]) != package["sha512"]:
                continue  # this binhost has another build of that number
            target = scratch / package["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            # a copy, not a link: the chroot can write here, the collected set must not change
            shutil.copy2(set_folder(site, base, held) / package["path"], target)
    for path in published:
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


def publish(site: Site, name: str) -> Record:
    """Sign the newest set, verify it as a client would, make it the current generation."""
    from tasks.publish import generation

    layout = site.layout
    made = records.read(layout, f"binpkgs:{name}")
    binhost = layout.binhost(name)
    key = str(site.config.binhost.signing_key)
    now = generation.current(binhost)
    facts = generation.facts(binhost, now) if now is not None else {}
    if now is None or (facts["set"], facts.get("signer")) != (made["set"], key):
        with chroots.workspace(site, f"sign-{name}") as space:
            held = generation.held(binhost, made["packages"], key)
            signed = _signed(site, name, made, held, space)
            now = generation.publish(
                binhost, made, signed, signer=key,
                revisions=chroots.revisions(site, name), trash=layout.trash,
            )  # fmt: skip
    gone = generation.prune(binhost, site.config.binhost.keep, layout.trash)
    chroots.sweep(site, layout.binpkgs(name), keep={set_folder(site, name, made)})
    say(f"  {name}: generation {now} with {len(made['packages'])} packages is current"
        + (f", {len(gone)} old ones deleted" if gone else ""))  # fmt: skip
    return {"generation": now, "set": made["set"]}


def _signed(site: Site, name: str, made: Record, held: Mapping[str, Path], space: Path) -> Path:
    """A signed and verified copy of a set, in a workspace; see publish.sign.

    What was published before (`held`) keeps its signature, and so its bytes.
    """
    from tasks.chroot import etc_portage
    from tasks.publish import sign
    from tasks.system.files import write_atomic
    from tasks.system.gpgv import Role
    from tasks.system.sandbox import Bind

    key = site.config.binhost.signing_key
    home = _signing_home(site)
    public = sign.public_key(home, key)
    assert key is not None  # noqa: S101 - public_key has seen to it
    copy = space / "packages"
    shutil.copytree(set_folder(site, name, made), copy)
    write_atomic(space / "key.asc", public)
    conf = etc_portage.files(site.config, name, features=(), variables=sign.variables(key))
    etc_portage.write(conf, etc_portage.profile_link(site.config, name), space / "etc",
                      site.layout.trash)  # fmt: skip
    seed = records.read(site.layout, f"seed:{site.config.seed_of(name)}")
    room = chroots.plan(
        site, name, space, etc=space / "etc", layers=[site.layout.seed(seed["sha512"])],
        binds=(
            Bind(str(home), sign.KEY_HOME, writable=True),
            Bind(str(copy), sign.PACKAGES, writable=True),
        ),
    )  # fmt: skip
    paths = [package["path"] for package in made["packages"]]
    new = [path for path in paths if path not in held]
    if new:
        sign.sign(room, copy, new, site.layout.log(f"publish:{name}"))
    ready = [held.get(path, copy / path) for path in paths]
    sign.verify(ready, Role("binhost", space / "key.asc", (key,)))
    return copy


def _signing_home(site: Site) -> Path:
    return site.layout.site / site.config.binhost.signing_home


def client(site: Site, name: str) -> Record:
    """Install a chroot's packages in a fresh client, from the published binhost over HTTP."""
    from tasks.chroot import etc_portage
    from tasks.publish import client as clients
    from tasks.publish import sign
    from tasks.serve import policy
    from tasks.serve.running import serving

    layout = site.layout
    door = policy.binhost(name, policy.PUBLIC)
    key = site.config.binhost.signing_key
    public = sign.public_key(_signing_home(site), key)
    seed = records.read(layout, f"seed:{site.config.seed_of(name)}")
    log = layout.log(f"client:{name}")
    with (
        chroots.workspace(site, f"client-{name}") as space,
        serving([door], layout.state, space / "nginx", worker=site.config.serve.worker) as url,
    ):
        made = etc.portage_files(
            site, name, features=(), variables=clients.VARIABLES,
            binrepos=clients.binrepos(name, f"{url}/{name}"),
        )  # fmt: skip
        link = etc_portage.profile_link(site.config, name)
        etc_portage.write(made, link, space / "etc", layout.trash)
        clients.keyring(public, str(key), space / "etc" / clients.GNUPG)
        inside = chroots.plan(
            site, name, space, network=True, etc=space / "etc", layers=[layout.seed(seed["sha512"])]
        )
        done = clients.install(inside, site.config.chroots[name].packages, log)
    published = records.read(layout, f"publish:{name}")
    say(f"  a fresh client installed {len(done)} packages of {name}, "
        f"generation {published['generation']}")  # fmt: skip
    return {"generation": published["generation"], "installed": done}


def results(site: Site, record: Record, *keys: str) -> list[Path]:
    """The paths below state/ that a record names under `keys`."""
    found: list[Any] = []
    for key in keys:
        found += record[key] if isinstance(record[key], list) else [record[key]]
    return [site.layout.state / part for part in found]
