"""Publishing a set of which 1 % is new, against rsync and `emaint binhost --fix` of the whole.

On a site of the lab: the real Portage of its stage signs, and runs emaint. The packages have a few
kilobytes. Larger ones cost the usual way more, which reads all of them; binmill reads new ones
only. The gate is not part of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tomli
import tomli_w

from bench import binpkgs
from bench.binpkgs import Package
from bench.measure import (
    Bench,
    Size,
    Table,
    peak_mb,
    progress,
    rounds,
    row,
    scratch_filesystem,
    seconds,
)
from lab import builder, mirror, upstream
from lab import site as lab_site
from tasks import records
from tasks.chroot import sandboxes
from tasks.config import load
from tasks.flow import etc, signing
from tasks.layout import Layout
from tasks.portage import index
from tasks.publish import candidate, client, generation, provenance, sbom
from tasks.publish.candidate import Content
from tasks.publish.generation import Source
from tasks.publish.pins import PinnedSeed, PinnedTree, Pins
from tasks.publish.published import SignedPackage
from tasks.publish.release_manifest import Release
from tasks.records import BINPKGS
from tasks.site import CONFIG_VARIABLE, Site
from tasks.system import sandbox
from tasks.system.sandbox import Bind, Sandbox

PROJECT = Path(__file__).parents[1]
TIMED, LARGE, SHARE = 2_000, 20_000, 100
BYTES = 16 << 10
SERVER = "/server"
PINS = Pins(
    PinnedTree("gentoo", "20260101", "0" * 40),
    {},
    PinnedSeed("lab", "stage3.tar.xz", "0" * 128),
)
ORIGIN = provenance.origin(
    chroot="base", etc="0" * 32, builder="urn:binmill:builder", version="0", pins=PINS
)
PUBLISH = [sys.executable, "-m", "bench.publish_one"]


def run(table: Table, size: Size) -> None:
    """Compare the times of a set, then measure time and memory of a larger one."""
    count, large = int(TIMED * size.scale), int(LARGE * size.scale)
    with scratch_filesystem(6) as place:
        site = _site(place / "site")
        _compare(table, site, place, [Package(n) for n in range(count)], size.pairs)
        _at_size(table, site, large)
    share = f"1 % of {count:,} packages new, {BYTES >> 10} kB each"
    table.save({"new": share, "usual way": "rsync, then emaint binhost --fix"})


BENCH = Bench(run, full=Size(3), quick=Size(2, scale=0.1))


def _env(site: Site) -> dict[str, str]:
    return {**os.environ, CONFIG_VARIABLE: str(site.layout.config)}


def _site(home: Path) -> Site:
    """Set up a site on the lab, with everything that publishing reads except a package set."""
    lab = builder.build_lab(upstream.default_directory()).directory
    progress("making a chroot on the lab")
    with mirror.serving(lab, 0) as address:
        lab_site.write_config(lab, int(address.rsplit(":", 1)[1]), home)
        layout = Layout(home, home / "state")
        raw = tomli.loads(layout.config.read_text())
        raw = {key: table for key, table in raw.items() if key not in ("access", "serve")}
        raw["chroots"] = {"base": raw["chroots"]["base"]}  # one chroot, and one view of it
        layout.config.write_text(tomli_w.dumps(raw))
        site = Site(layout, load.read_config(layout))
        doit = [str(Path(sys.executable).with_name("doit")), "chroot:base", "etc:base", "tree"]
        seconds(doit, cwd=PROJECT, env=_env(site))
    return site


def _collect(site: Site, packages: Sequence[Package], new: Sequence[Package]) -> None:
    """Make `packages` the site's set; write the `new` ones only: no other file is read."""
    digests = {p.path: hashlib.sha512(p.path.encode()).hexdigest() for p in packages}
    text = binpkgs.index(packages)
    identity = hashlib.sha256(text.encode()).hexdigest()[:32]
    folder = site.layout.binpkgs("base") / identity
    for package in new:
        binpkgs.write(folder, package, BYTES)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Packages").write_text(text)
    records.save(site.layout, BINPKGS("base"), binpkgs.record(packages, digests, identity))


def _bump(packages: Sequence[Package], first: int) -> tuple[list[Package], list[Package]]:
    """Rebuild every hundredth package of a set, from `first`; the new set, and those packages."""
    numbers = {p.number for p in packages[first::SHARE]}
    after = [replace(p, build=p.build + 1) if p.number in numbers else p for p in packages]
    return after, [p for p in after if p.number in numbers]


def _publish(site: Site) -> float:
    return seconds(PUBLISH, cwd=PROJECT, env=_env(site))


def _compare(
    table: Table, site: Site, place: Path, packages: Sequence[Package], pairs: int
) -> None:
    progress(f"publishing {len(packages):,} packages")
    _collect(site, packages, packages)
    table.add(row("publish, all new", [_publish(site)]))
    own: list[float] = []
    whole: list[float] = []
    rsync_times: list[float] = []
    server = place / "server"
    view = site.layout.binhost("base") / "current" / "public"
    _rsync(view, server)
    with site.chroot("base").workspace("bench-server") as space:
        machine = _server(site, server, space)
        _emaint(machine)
        for number in rounds("publish 1 %", pairs):
            packages, new = _bump(packages, number)
            _collect(site, packages, new)
            own.append(_publish(site))
            rsync_times.append(_rsync(view, server) + _emaint(machine))
            for each in server.glob("Packages*"):
                each.unlink()
            whole.append(_rsync(view, server) + _emaint(machine))
    packages, new = _bump(packages, pairs)
    _collect(site, packages, new)
    table.add(row("publish, 1 % new", own, whole, peak_mb(PUBLISH, env=_env(site))))
    table.add(row("publish, against emaint with its last index", own, rsync_times))


def _rsync(view: Path, server: Path) -> float:
    """Copy new packages, as one does to a server; seconds."""
    only = ("--include=*/", "--include=*.gpkg.tar", "--exclude=*")
    return seconds(["rsync", "-a", "--delete", *only, f"{view}/", server])


def _emaint(machine: Sandbox) -> float:
    start = time.perf_counter()
    sandbox.run(machine, ["emaint", "--fix", "binhost"], timeout=3600)
    return time.perf_counter() - start


def _server(site: Site, server: Path, space: Path) -> Sandbox:
    """Plan a machine with Portage, the packages in its PKGDIR, and the public signing key."""
    chroot = site.chroot("base")
    variables = {**client.VARIABLES, "PKGDIR": SERVER}
    return sandboxes.from_seed(
        chroot,
        records.reading(site.layout, sandboxes.seed_keys(chroot)),
        space,
        files=etc.portage_files(chroot, features=(), variables=variables),
        trusted=signing.signing_key(site),
        binds=(Bind(str(server), SERVER, writable=True),),
    )


def _at_size(table: Table, site: Site, count: int) -> None:
    """Measure time and memory of many packages; the generation before needs no Portage."""
    progress(f"publishing 1 % of {count:,} packages")
    shutil.rmtree(site.layout.binhosts)
    packages = [Package(n) for n in range(count)]
    _generation_without_portage(site, packages)
    after, new = _bump(packages, 0)
    _collect(site, after, new)
    memory = peak_mb(PUBLISH, env=_env(site))
    after, new = _bump(after, 1)
    _collect(site, after, new)
    table.add(row(f"publish, 1 % of {count:,} new", [_publish(site)], memory_mb=memory))


def _generation_without_portage(site: Site, packages: Sequence[Package]) -> None:
    """Publish files that are not packages: the next generation links them and reads none."""
    _collect(site, packages, ())
    record = records.load(site.layout, BINPKGS("base"))
    folder = site.layout.work / "generated"
    header, stanzas = index.parse(binpkgs.index(packages))
    of_set = index.of_set(stanzas, record.packages)
    for package in packages:
        (folder / package.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / package.path).write_text(package.path)
    digests = {p.path: p.sha512 for p in record.packages}
    texts = sbom.components(of_set, digests)
    signed = {
        path: replace(
            SignedPackage.read(folder / path, digest), origin=ORIGIN, component=texts[path]
        )
        for path, digest in digests.items()
    }
    content = Content(
        header=header,
        stanzas=of_set,
        packages=signed,
        views={"public": list(signed)},
        source=Source("generated", str(site.config.binhost.signing_key), {}),
        release=Release("base", "generated", PINS, "0" * 64),
    )
    binhost = site.layout.binhost("base")
    number = candidate.prepare(binhost, content, _no_signatures, site.layout.trash, valid_days=30)
    candidate.promote_candidate(binhost, number)
    generation.switch(binhost, number)
    shutil.rmtree(folder)


def _no_signatures(files: Sequence[Path]) -> None:
    """Stand in for the signer: empty signatures."""
    for file in files:
        file.with_name(f"{file.name}.asc").touch()
