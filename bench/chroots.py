"""Chroots: deriving one against `cp -a`, entering, the same work inside, what ten stacks take.

The seed is made up: a few programs of this machine and 30,000 files of some 900 MB. The build is
one of the lab's packages in its stage.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import portage_tree
from bench.measure import Row, fresh_filesystem, report, rested, row, seconds, settle
from bench.snapshots import FIRST, QUICK, freezing
from lab import build, upstream
from tasks.chroot import layers
from tasks.snapshot import export
from tasks.system import copy_fallback
from tasks.system.sandbox import Bind, Sandbox, run, workspace
from tests.kit import stub_site

FOLDERS, FILES = 60, 500
STACKS = 10
PROGRAMS = (*stub_site.SITE_PROGRAMS, "cp", "date", "find", "tar", "wc")
# What a build does to its file system: look everywhere, read much, write much, change some, delete.
WORK = """
set -e
begin=$(date +%s%N)
find / -xdev -type f | wc -l > /tmp/count
tar -cf - /data/1? | cat > /dev/null
cp -a /data/2 /data/20 /tmp
for file in /data/3/1*; do echo more >> $file; done
rm -r /tmp/2 /data/4
echo $begin $(date +%s%N)
"""
# What a build does in the lab's stage: unpack, configure, compile, install over what is there.
BUILD = """
set -e
begin=$(date +%s%N)
cd /tmp
tar -xf /mnt/$(ls /mnt | grep hello-)
cd hello-*
./configure --quiet --prefix=/usr > /dev/null
make --silent > /dev/null 2>&1
make --silent install > /dev/null 2>&1
echo $begin $(date +%s%N)
"""


def main(rounds: int = 9, scale: float = 1.0) -> None:
    """Print the table; with `scale` the seed and the tree are smaller or larger."""
    rested()
    with fresh_filesystem(8) as place:
        seed = _seed(place / "seed", scale)
        (place / "layers").mkdir()
        chroot = (_derive(place, seed, "base", 0)[0], seed)
        rows = [
            _deriving(place, chroot, rounds),
            _entering(place, chroot, rounds * 3),
            _working(place, chroot, rounds),
        ]
        facts = {
            "files of the seed": sum(path.is_file() for path in seed.rglob("*")),
            "MB of the seed": round(_bytes(seed) / 1e6),
            "ten stacks": f"{_stacks(place, chroot):.4%} of the base for each",
        }
        shutil.rmtree(seed)
        rows.append(_building(place, max(rounds // 2, 1)))
        rows += _exporting(place, max(rounds // 3, 1), scale)
    report("chroots", rows, facts)


def _seed(seed: Path, scale: float) -> Path:
    dice = random.Random(1)  # noqa: S311 - shape, not secrecy
    noise = dice.randbytes(1 << 20)
    for folder in ("tmp", "root", "proc", "etc"):
        (seed / folder).mkdir(parents=True)
    stub_site.copy_programs(seed, PROGRAMS)
    for number in range(FOLDERS):
        place = seed / "data" / str(number)
        place.mkdir(parents=True)
        for name in range(round(FILES * scale)):
            start = dice.randrange(len(noise) >> 1)
            size = min(int(dice.expovariate(1 / 30_000)), len(noise) >> 1)
            (place / str(name)).write_bytes(noise[start : start + size])
    return seed


def _derive(place: Path, below: Path, name: str, number: int) -> tuple[Path, float]:
    """Commit a chroot's layer, as `doit chroot:NAME` does; where it is, and how long it took."""
    target = place / "layers" / f"{name}{number}"
    start = time.perf_counter()
    layers.commit(layers.contents(name, ["base", name]), [below], target, place / "trash")
    return target, time.perf_counter() - start


def _deriving(place: Path, chroot: tuple[Path, ...], rounds: int) -> Row:
    ours, usual = [], []
    for number in range(rounds):
        settle(chroot[-1])
        usual.append(seconds(["cp", "-a", chroot[-1], place / "copy"]))
        settle()
        ours.append(_derive(place, chroot[-1], "derived", number)[1])
        shutil.rmtree(place / "copy")
    return row("derive a chroot, beside cp -a", ours, usual)


def _entering(place: Path, chroot: tuple[Path, ...], rounds: int) -> Row:
    """Namespaces, mounts, exec, leave: everything from a call to its end, in a running doit."""
    binds = tuple(Bind(str(place / "layers"), f"/var/db/repos/{name}") for name in ("a", "b"))
    times = []
    for _ in range(rounds + 1):  # the first one imports what a running doit has
        start = time.perf_counter()
        with workspace(place / "work", "enter", place / "trash") as space:
            run(_box(chroot, space, binds), ["true"])
        times.append(time.perf_counter() - start)
    return row("enter a chroot and leave it", times[1:])


def _working(place: Path, chroot: tuple[Path, ...], rounds: int) -> Row:
    """The same work in an overlay and in a copy of all layers; timed inside, without entering."""
    ours: list[float] = []
    usual: list[float] = []
    for _ in range(rounds):
        for times, prepare in ((usual, copy_fallback.spread), (ours, None)):
            times.append(_work(place, chroot, prepare))
    return row("file work alone inside, beside a plain copy", ours, usual)


def _building(place: Path, rounds: int) -> Row:
    """A package built in an overlay and in a copy of the lab's stage."""
    lab = upstream.Upstream(build.build(upstream.default_directory()).directory)
    stage = place / "stage"
    stage.mkdir()
    tarball = next(lab.autobuilds.glob("*/*.tar.xz"))
    subprocess.run(["tar", "xpf", tarball, "-C", stage], check=True)
    sources = next(lab.distfiles.glob("*/hello-*.tar.*")).parent
    binds = (Bind(str(sources), "/mnt"),)
    ours: list[float] = []
    usual: list[float] = []
    for _ in range(rounds):
        for times, prepare in ((usual, copy_fallback.spread), (ours, None)):
            times.append(_work(place, (stage,), prepare, BUILD, binds))
    shutil.rmtree(stage)
    return row("a build inside, beside a plain copy", ours, usual)


def _work(
    place: Path,
    chroot: tuple[Path, ...],
    prepare: Callable[..., None] | None,
    script: str = WORK,
    binds: tuple[Bind, ...] = (),
) -> float:
    with workspace(place / "work", "inside", place / "trash") as space:
        if prepare:
            prepare(chroot, space)
        settle(space / "root" if prepare else chroot[-1])
        said = run(_box(chroot, space, binds), ["sh", "-c", script]).stdout
        begin, end = said.split()[-2:]
        return (int(end) - int(begin)) / 1e9


def _box(chroot: tuple[Path, ...], space: Path, binds: tuple[Bind, ...] = ()) -> Sandbox:
    plain = Sandbox("bench", chroot, space, environment={"PATH": "/usr/bin:/bin"})
    return replace(plain, binds=binds)


def _stacks(place: Path, chroot: tuple[Path, ...]) -> float:
    """What each of ten stacks of one base takes of it, before any package."""
    made = [_derive(place, chroot[-1], "stack", number)[0] for number in range(STACKS)]
    return sum(map(_bytes, made)) / STACKS / _bytes(chroot[-1])


def _bytes(folder: Path) -> int:
    said = subprocess.check_output(["du", "-s", "--block-size=1", folder], text=True)
    return int(said.split()[0])


def _exporting(place: Path, rounds: int, scale: float) -> list[Row]:
    """The pinned tree as files: cold, once per commit, beside git's own checkout; then mounted."""
    folder = place / "archive"
    folder.mkdir()
    made = portage_tree.packages(scale)
    archive = portage_tree.write(made, FIRST, folder, scale, QUICK)
    repository = place / "tree.git"
    commit = subprocess.check_output(freezing(repository, archive), text=True).split()[0]
    cold, checkout, mounted = [], [], []
    for _ in range(rounds):
        settle(repository)
        checkout.append(seconds(["git", "clone", "-q", repository, place / "clone"]))
        shutil.rmtree(place / "clone")
        settle(repository)
        start = time.perf_counter()
        export.export_commit(repository, commit, place / "exported", place / "trash")
        cold.append(time.perf_counter() - start)
        mounted += [_mounted(place, place / "exported") for _ in range(9)]
        shutil.rmtree(place / "exported")
    return [
        row("the pinned tree as files, beside git clone", cold, checkout),
        row("after that: enter with it mounted", mounted),
    ]


def _mounted(place: Path, exported: Path) -> float:
    seed = place / "small"
    if not seed.is_dir():
        stub_site.copy_programs(seed)
    with workspace(place / "work", "mounted", place / "trash") as space:
        start = time.perf_counter()
        run(
            _box((seed,), space, (Bind(str(exported), "/var/db/repos/gentoo"),)),
            ["ls", "/var/db/repos/gentoo/profiles"],
        )
        return time.perf_counter() - start
