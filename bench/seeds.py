"""Extracting a seed - hash, check every entry, extract, verify, sync - against `tar xpf`.

The stage is made of this machine's own /usr: every other file of up to 16 MiB until there is
1 GB, and the few files that make it a stage.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.isolation import WORK, scratch
from bench.measure import (
    Bench,
    Size,
    Table,
    peak_mb,
    populate_memory,
    progress,
    rounds,
    row,
    scratch_filesystem,
    seconds,
    settle,
)
from tasks.system.files import sha512

_LARGEST = 16 << 20
_BYTES = 1100 << 20
_TAR = (
    "tar",
    "--create",
    "--sort=name",
    "--format=posix",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*.*",
)
MANY_BLOCKS = "many-blocks.tar.xz"
PACKERS: dict[str, tuple[str, ...]] = {
    MANY_BLOCKS: ("xz", "-T0", "-3", "--block-size=16MiB"),
    "one-block.tar.xz": ("xz", "-T1", "-3"),
    "stage.tar.zst": ("zstd", "-q", "-T0", "-9"),
    "stage.tar.gz": ("gzip", "-5"),
    "stage.tar.bz2": ("bzip2", "-9"),
}


def run(table: Table, size: Size) -> None:
    """Compare each way of packing a stage, then the limit of this machine, then a smaller stage."""
    archives = _archives(size.scale, list(PACKERS))
    quarter = _archives(size.scale / 4, [MANY_BLOCKS])[0]
    populate_memory()
    room = 1 + 7 * size.scale
    # a file system for each: one that was full of small files is slow for both
    with scratch_filesystem(room) as by_hand, scratch_filesystem(room) as ours:
        for archive in archives:
            pairs = size.pairs if archive.suffix == ".xz" else min(size.pairs, 3)
            _compare(table, by_hand, ours, archive, pairs)
        _limit(table, ours, archives[0], size.pairs)
        _quarter(table, by_hand, ours, quarter, min(size.pairs, 3))
    table.save(_facts(archives[0]))


BENCH = Bench(run, full=Size(5), quick=Size(2, scale=0.08))


def _compare(table: Table, by_hand: Path, ours: Path, archive: Path, pairs: int) -> None:
    plain, with_sync, own = _in_turns(by_hand, ours, archive, pairs)
    memory = None
    if archive.name == MANY_BLOCKS:
        memory = peak_mb(_extract(archive, ours / "seed"))
        shutil.rmtree(ours / "seed")
    table.add(row(f"{archive.name}, against tar xpf", own, plain, memory))
    table.add(row(f"{archive.name}, against tar xpf and sync", own, with_sync))


def _quarter(table: Table, by_hand: Path, ours: Path, archive: Path, pairs: int) -> None:
    plain, _, own = _in_turns(by_hand, ours, archive, pairs)
    table.add(row(f"{archive.name}, a quarter of it", own, plain))


def _in_turns(
    by_hand: Path, ours: Path, archive: Path, pairs: int
) -> tuple[list[float], list[float], list[float]]:
    """Extract in turns; seconds of `tar xpf`, of that and a sync, and of binmill."""
    plain: list[float] = []
    with_sync: list[float] = []
    own: list[float] = []
    for _ in rounds(archive.name, pairs):
        target = by_hand / "seed"
        target.mkdir()
        settle(archive)
        plain.append(seconds(["tar", "xpf", archive, "-C", target]))
        with_sync.append(plain[-1] + seconds(["sync", "-f", target]))
        shutil.rmtree(target)
        settle(archive)
        own.append(seconds(_extract(archive, ours / "seed")))
        shutil.rmtree(ours / "seed")
    return plain, with_sync, own


def _limit(table: Table, ours: Path, archive: Path, pairs: int) -> None:
    """Compare with the limit of this machine: decompress with all processors, write nothing."""
    own: list[float] = []
    alone: list[float] = []
    for _ in rounds(f"{archive.name} and xz alone", pairs):
        settle(archive)
        alone.append(seconds(["xz", "-T0", "-dc", archive]))
        settle(archive)
        own.append(seconds(_extract(archive, ours / "seed")))
        shutil.rmtree(ours / "seed")
    table.add(row(f"{archive.name}, against xz -T0 -dc alone", own, alone))


def _extract(archive: Path, target: Path) -> list[str | Path]:
    digest = archive.with_name(f"{archive.name}.sha512").read_text()
    return [sys.executable, "-m", "bench.extract_one", archive, digest, target]


def _archives(scale: float, names: list[str]) -> list[Path]:
    """Pack the stage in each of these ways, once; later runs use the same files."""
    folder = WORK / f"stage-{scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    plain = scratch() / "stage.tar"
    for name in names:
        if not (folder / f"{name}.sha512").exists():
            progress(f"packing {name}, {scale:.0%} of the stage, once")
            if not plain.exists():
                _stage(plain, int(_BYTES * scale))
            packed = scratch() / name
            with packed.open("wb") as out:
                subprocess.run([*PACKERS[name], "-c", plain], stdout=out, check=True)
            digest = sha512(packed)
            packed.rename(folder / name)
            (folder / f"{name}.sha512").write_text(digest)
    plain.unlink(missing_ok=True)
    return [folder / name for name in names]


def _stage(plain: Path, size: int) -> None:
    """Write a tar of this machine's files, and of the few that make a stage of it."""
    root = plain.with_name("root")
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for path in _choice(size):
        copy = root / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    for name in ("sh", "env", "emerge"):
        (root / "usr/bin" / name).write_text(f"#!{name}\n")
    root.chmod(0o755)
    subprocess.run([*_TAR, "--file", plain, "-C", root, "."], check=True)
    shutil.rmtree(root)


def _choice(size: int) -> Iterator[Path]:
    """Yield every other file of /usr, in the order of names, until they have `size` bytes."""
    for number, path in enumerate(sorted(p for p in Path("/usr").rglob("*") if p.is_file())):
        status = path.lstat()
        if size < 0:
            break
        plain = not path.is_symlink() and status.st_nlink == 1 and status.st_size <= _LARGEST
        if number % 2 and plain:
            yield path
            size -= status.st_size


def _facts(archive: Path) -> dict[str, str]:
    entries = len(subprocess.check_output(["tar", "-tf", archive]).splitlines())
    listing = subprocess.check_output(["xz", "--robot", "-l", archive], text=True)
    _, _, blocks, packed, plain, *_ = listing.splitlines()[-1].split("\t")
    sizes = f"{int(packed) / 1e6:.0f} MB, as tar {int(plain) / 1e6:.0f} MB"
    return {"entries": f"{entries:,}", "blocks": blocks, "packed": sizes}
