"""Chroots: derive one against `cp -a`, enter it, work in it, build in it, stack ten of them.

The seed is generated: a few programs of this machine and 30,000 files of some 900 MB. The build is
one of the lab's packages in the lab's stage.
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
from bench.measure import (
    Bench,
    Row,
    Size,
    Table,
    populate_memory,
    progress,
    rounds,
    row,
    scratch_filesystem,
    seconds,
    settle,
)
from bench.snapshots import FIRST, freeze_command
from lab import builder, upstream
from tasks.chroot import layers
from tasks.snapshot import export
from tasks.system import copy_fallback, sandbox
from tasks.system.sandbox import Bind, Sandbox, workspace
from tests.kit import stub_site

FOLDERS, FILES = 60, 500
STACKS = 10
PROGRAMS = (*stub_site.SITE_PROGRAMS, "cp", "date", "find", "tar", "wc")
# What a build does to its file system: look everywhere, read much, write much, change some, delete.
FILE_WORK = """
set -e
begin=$(date +%s%N)
find / -xdev -type f | wc -l > /tmp/count
tar -cf - /data/1? | cat > /dev/null
cp -a /data/2 /data/20 /tmp
for file in /data/3/1*; do echo more >> $file; done
rm -r /tmp/2 /data/4
echo $begin $(date +%s%N)
"""
# What a build does in the lab's stage: unpack, configure, compile, install over existing files.
PACKAGE_BUILD = """
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


def run(table: Table, size: Size) -> None:
    """Measure each step on one file system; `size.scale` is that of the seed and of the tree."""
    populate_memory()
    with scratch_filesystem(3 + 5 * size.scale) as place:
        progress("generating the seed")
        seed = _seed(place / "seed", size.scale)
        (place / "layers").mkdir()
        chroot = (_derive(place, seed, "base", 0)[0], seed)
        table.add(_deriving(place, seed, size.pairs))
        table.add(_entering(place, chroot, size.pairs * 3))
        table.add(_file_work(place, chroot, size.pairs))
        facts: dict[str, str | int] = {
            "files of the seed": sum(path.is_file() for path in seed.rglob("*")),
            "MB of the seed": round(_bytes(seed) / 1e6),
            "ten stacks": f"{_stacks(place, seed):.4%} of the base for each",
        }
        shutil.rmtree(seed)
        table.add(_building(place, max(size.pairs // 2, 1)))
        _exporting(table, place, max(size.pairs // 3, 1), size.scale)
    table.save(facts)


BENCH = Bench(run, full=Size(9), quick=Size(2, scale=0.25))


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


def _derive(place: Path, base: Path, name: str, number: int) -> tuple[Path, float]:
    """Commit a chroot's layer, as `doit chroot:NAME` does; its folder, and the seconds."""
    target = place / "layers" / f"{name}{number}"
    start = time.perf_counter()
    layers.commit(layers.contents(name, ["base", name]), [base], target, place / "trash")
    return target, time.perf_counter() - start


def _deriving(place: Path, seed: Path, pairs: int) -> Row:
    own: list[float] = []
    usual: list[float] = []
    for number in rounds("derive", pairs):
        settle(seed)
        usual.append(seconds(["cp", "-a", seed, place / "copy"]))
        settle()
        own.append(_derive(place, seed, "derived", number)[1])
        shutil.rmtree(place / "copy")
    return row("derive a chroot, against cp -a", own, usual)


def _entering(place: Path, chroot: tuple[Path, ...], count: int) -> Row:
    """Time namespaces, mounts, exec and their end, from a call to its return, in a running doit."""
    binds = tuple(Bind(str(place / "layers"), f"/var/db/repos/{name}") for name in ("a", "b"))
    times = []
    for _ in range(count + 1):  # the first one imports what a running doit has imported
        start = time.perf_counter()
        with workspace(place / "work", "enter", place / "trash") as space:
            sandbox.run(_sandbox(chroot, space, binds), ["true"])
        times.append(time.perf_counter() - start)
    return row("enter a chroot and leave it", times[1:])


def _file_work(place: Path, chroot: tuple[Path, ...], pairs: int) -> Row:
    """Do the same work in an overlay and in a copy of all layers; without the time of entering."""
    own: list[float] = []
    usual: list[float] = []
    for _ in rounds("file work", pairs):
        usual.append(_inside(place, chroot, copy_fallback.copy_layers))
        own.append(_inside(place, chroot))
    return row("file work alone inside, against a plain copy", own, usual)


def _building(place: Path, pairs: int) -> Row:
    """Build a package in an overlay and in a copy of the lab's stage."""
    lab = upstream.Upstream(builder.build_lab(upstream.default_directory()).directory)
    stage = place / "stage"
    stage.mkdir()
    tarball = next(lab.autobuilds.glob("*/*.tar.xz"))
    subprocess.run(["tar", "xpf", tarball, "-C", stage], check=True)
    sources = next(lab.distfiles.glob("*/hello-*.tar.*")).parent
    binds = (Bind(str(sources), "/mnt"),)
    own: list[float] = []
    usual: list[float] = []
    for _ in rounds("build a package", pairs):
        usual.append(_inside(place, (stage,), copy_fallback.copy_layers, PACKAGE_BUILD, binds))
        own.append(_inside(place, (stage,), None, PACKAGE_BUILD, binds))
    shutil.rmtree(stage)
    return row("a build inside, against a plain copy", own, usual)


def _inside(
    place: Path,
    chroot: tuple[Path, ...],
    prepare: Callable[..., None] | None = None,
    script: str = FILE_WORK,
    binds: tuple[Bind, ...] = (),
) -> float:
    """Run a script inside that prints its first and last nanosecond; the seconds between."""
    with workspace(place / "work", "inside", place / "trash") as space:
        if prepare:
            prepare(chroot, space)
        settle(space / "root" if prepare else chroot[-1])
        output = sandbox.run(_sandbox(chroot, space, binds), ["sh", "-c", script]).stdout
        begin, end = output.split()[-2:]
        return (int(end) - int(begin)) / 1e9


def _sandbox(chroot: tuple[Path, ...], space: Path, binds: tuple[Bind, ...] = ()) -> Sandbox:
    plain = Sandbox("bench", chroot, space, environment={"PATH": "/usr/bin:/bin"})
    return replace(plain, binds=binds)


def _stacks(place: Path, seed: Path) -> float:
    """Derive ten stacks from one base; the share of its size that each takes, without packages."""
    stacks = [_derive(place, seed, "stack", number)[0] for number in range(STACKS)]
    return sum(map(_bytes, stacks)) / STACKS / _bytes(seed)


def _bytes(folder: Path) -> int:
    output = subprocess.check_output(["du", "-s", "--block-size=1", folder], text=True)
    return int(output.split()[0])


def _exporting(table: Table, place: Path, pairs: int, scale: float) -> None:
    """Export the locked tree, once per commit, against git's own checkout; then mount it."""
    progress("generating a tree and freezing it")
    folder = place / "archive"
    folder.mkdir()
    tree = portage_tree.packages(scale)
    archive = portage_tree.write(tree, FIRST, folder, scale, portage_tree.QUICK_BLOCK)
    repository = place / "tree.git"
    freezing = subprocess.check_output(freeze_command(repository, archive), text=True)
    commit = freezing.split()[0]
    cold: list[float] = []
    checkout: list[float] = []
    mount_times: list[float] = []
    for _ in rounds("export", pairs):
        settle(repository)
        checkout.append(seconds(["git", "clone", "-q", repository, place / "clone"]))
        shutil.rmtree(place / "clone")
        settle(repository)
        start = time.perf_counter()
        export.export_commit(repository, commit, place / "exported", place / "trash")
        cold.append(time.perf_counter() - start)
        mount_times += [_mount_time(place, place / "exported") for _ in range(9)]
        shutil.rmtree(place / "exported")
    table.add(row("the locked tree as files, against git clone", cold, checkout))
    table.add(row("after that: enter with it mounted", mount_times))


def _mount_time(place: Path, tree: Path) -> float:
    root = place / "small"
    if not root.is_dir():
        stub_site.copy_programs(root)
    binds = (Bind(str(tree), "/var/db/repos/gentoo"),)
    with workspace(place / "work", "mounted", place / "trash") as space:
        start = time.perf_counter()
        sandbox.run(_sandbox((root,), space, binds), ["ls", "/var/db/repos/gentoo/profiles"])
        return time.perf_counter() - start
