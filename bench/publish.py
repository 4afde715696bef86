"""Publishing a set of which 1 % is new, against rsync and `emaint binhost --fix` of the whole.

On a site of the lab: the real Portage of its stage signs, and is what the usual way runs. The
packages have a few kilobytes; larger ones cost the usual way more, which reads all of them, and
ours only where they are new. The gate is not part of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tomli
import tomli_w

from bench import binpkgs
from bench.binpkgs import Package
from bench.measure import Row, peak_mb, report, row, seconds
from lab import build, mirror, upstream
from lab import site as lab_site
from tasks import records
from tasks.config import load
from tasks.flow import chroots, etc
from tasks.layout import Layout
from tasks.portage import etc_portage, index
from tasks.publish import client, generation, provenance, published, sbom, sign
from tasks.publish.generation import Content
from tasks.site import CONFIG_VARIABLE, Site
from tasks.system import sandbox
from tasks.system.sandbox import Bind

PROJECT = Path(__file__).parents[1]
COUNT, MANY, SHARE = 2_000, 20_000, 100
SIZE = 16 << 10
SERVER = "/server"
ORIGIN = provenance.origin(
    chroot="base",
    etc="0" * 32,
    builder="urn:binmill:builder",
    version="0",
    pins={
        "tree": {"name": "gentoo", "commit": "0" * 40, "tag": "20260101"},
        "overlays": {},
        "seed": {"path": "stage3.tar.xz", "sha512": "0" * 128},
    },
)
ONE = [sys.executable, "-m", "bench.publish_one"]


def main(rounds: int = 3, count: int = COUNT, many: int = MANY) -> None:
    """Print the table; `count` packages for time, `many` for memory."""
    # not below the project: a seed is full of programs, and mypy would read them
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="binmill-bench-") as name:
        site = _site(Path(name))
        os.environ[CONFIG_VARIABLE] = str(site.layout.config)
        rows = _in_turns(site, Path(name), [Package(n) for n in range(count)], rounds)
        rows += _at_size(site, many)
    share = f"1 % of {count:,} packages new, {SIZE >> 10} kB each"
    report("publish", rows, {"new": share, "usual way": "rsync, then emaint binhost --fix"})


def _site(place: Path) -> Site:
    """A site on the lab, with all that publishing reads but a set."""
    lab = build.build(upstream.default_directory()).directory
    home = place / "site"
    with mirror.serving(lab, 0) as address:
        lab_site.write_config(lab, int(address.rsplit(":", 1)[1]), home)
        layout = Layout(home, home / "state")
        raw = tomli.loads(layout.config.read_text())
        raw = {key: table for key, table in raw.items() if key not in ("access", "serve")}
        raw["chroots"] = {"base": raw["chroots"]["base"]}  # one chroot, and one view of it
        layout.config.write_text(tomli_w.dumps(raw))
        doit = [str(Path(sys.executable).with_name("doit")), "chroot:base", "etc:base", "tree"]
        subprocess.run(
            doit,
            check=True,
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            env={**os.environ, CONFIG_VARIABLE: str(layout.config)},
        )
    return Site(layout, load.load(layout))


def _collect(site: Site, packages: Sequence[Package], new: Sequence[Package]) -> None:
    """Make it the site's set; only what is `new` is written, since nothing else is read."""
    digests = {p.path: hashlib.sha512(p.path.encode()).hexdigest() for p in packages}
    text = binpkgs.index(packages)
    identity = hashlib.sha256(text.encode()).hexdigest()[:32]
    folder = site.layout.binpkgs("base") / identity
    for package in new:
        binpkgs.write(folder, package, SIZE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Packages").write_text(text)
    records.write(site.layout, "binpkgs:base", binpkgs.record(packages, digests, identity))


def _bumped(packages: Sequence[Package], first: int) -> tuple[list[Package], list[Package]]:
    """A set in which every hundredth was built again, and those."""
    some = {p.number for p in packages[first::SHARE]}
    after = [replace(p, build=p.build + 1) if p.number in some else p for p in packages]
    return after, [p for p in after if p.number in some]


def _in_turns(site: Site, place: Path, packages: list[Package], rounds: int) -> list[Row]:
    _collect(site, packages, packages)
    first = seconds(ONE, cwd=PROJECT)
    ours, whole, changed = [], [], []
    server = place / "server"
    view = site.layout.binhost("base") / "current" / "public"
    _rsync(view, server)
    with chroots.workspace(site, "bench-server") as space:
        room = _server(site, server, space)
        _emaint(room)
        for number in range(rounds):
            packages, new = _bumped(packages, number)
            _collect(site, packages, new)
            ours.append(seconds(ONE, cwd=PROJECT))
            changed.append(_rsync(view, server) + _emaint(room))
            for each in server.glob("Packages*"):
                each.unlink()
            whole.append(_rsync(view, server) + _emaint(room))
    made = [
        row("publish, 1 % new", ours, whole),
        row("publish, beside emaint with its last index", ours, changed),
        row("publish, all new", [first]),
    ]
    made[0].memory_mb = _peak(site, packages, rounds)
    return made


def _peak(site: Site, packages: list[Package], first: int) -> float:
    after, new = _bumped(packages, first)
    _collect(site, after, new)
    return peak_mb(ONE)


def _rsync(view: Path, server: Path) -> float:
    """Copy what is new of the packages, as one does to a server; seconds."""
    return seconds(
        [
            "rsync",
            "-a",
            "--delete",
            "--include=*/",
            "--include=*.gpkg.tar",
            "--exclude=*",
            f"{view}/",
            server,
        ]
    )


def _emaint(room: sandbox.Sandbox) -> float:
    start = time.perf_counter()
    sandbox.run(room, ["emaint", "--fix", "binhost"], timeout=3600)
    return time.perf_counter() - start


def _server(site: Site, server: Path, space: Path) -> sandbox.Sandbox:
    """A machine with Portage, the packages in its PKGDIR, and the key that has signed them."""
    variables = {**client.VARIABLES, "PKGDIR": SERVER}
    made = etc.portage_files(site, "base", features=(), variables=variables)
    link = etc_portage.profile_link(site.config, "base")
    etc_portage.write(made, link, space / "etc", site.layout.trash)
    key = str(site.config.binhost.signing_key)
    client.keyring(sign.public_key(site.signing_home, key), key, space / "etc" / client.GNUPG)
    seed = records.read(site.layout, "seed:lab")["sha512"]
    room: sandbox.Sandbox = chroots.plan(
        site,
        "base",
        space,
        etc=space / "etc",
        layers=[site.layout.seed(seed)],
        binds=(Bind(str(server), SERVER, writable=True),),
    )
    return room


def _at_size(site: Site, many: int) -> list[Row]:
    """Time and memory of many packages; the generation before is laid down without Portage."""
    shutil.rmtree(site.layout.binhosts)
    packages = [Package(n) for n in range(many)]
    _lay_down(site, packages)
    after, new = _bumped(packages, 0)
    _collect(site, after, new)
    peak = peak_mb(ONE)
    after, new = _bumped(after, 1)
    _collect(site, after, new)
    made = row(f"publish, 1 % of {many:,} new", [seconds(ONE, cwd=PROJECT)])
    made.memory_mb = peak
    return [made]


def _lay_down(site: Site, packages: Sequence[Package]) -> None:
    """A generation of files that are no packages, as the site's own: they are linked, not read."""
    _collect(site, packages, ())
    made = records.read(site.layout, "binpkgs:base")
    folder = site.layout.work / "laid-down"
    header, stanzas = index.parse(binpkgs.index(packages))
    of_set = index.of_set(stanzas, made["packages"])
    for package in packages:
        (folder / package.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / package.path).write_text(package.path)
    digests = {p["path"]: p["sha512"] for p in made["packages"]}
    texts = sbom.components(of_set, digests)
    files = {
        path: replace(
            published.file_of(folder / path, digest), origin=ORIGIN, component=texts[path]
        )
        for path, digest in digests.items()
    }
    content = Content(
        header,
        of_set,
        files,
        {"public": list(files)},
        {},
        {"name": "base"},
        {"set": "laid down", "signer": site.config.binhost.signing_key},
        30,
    )
    generation.publish(site.layout.binhost("base"), content, _touch, site.layout.trash)
    shutil.rmtree(folder)


def _touch(files: Sequence[Path]) -> None:
    for file in files:
        file.with_name(f"{file.name}.asc").touch()
