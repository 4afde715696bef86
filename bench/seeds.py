"""Unpacking a seed, verified, judged, checked and synced, against `tar xpf` by hand.

The stage is a part of this machine's own /usr: every other file of up to 16 MiB until there is
1 GB, with what makes it a stage laid over.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.measure import WORK, Row, fresh_filesystem, peak_mb, report, rested, row, seconds, settle
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
PACKERS: dict[str, tuple[str, ...]] = {
    "many-blocks.tar.xz": ("xz", "-T0", "-3", "--block-size=16MiB"),
    "one-block.tar.xz": ("xz", "-T1", "-3"),
    "stage.tar.zst": ("zstd", "-q", "-T0", "-9"),
    "stage.tar.gz": ("gzip", "-5"),
    "stage.tar.bz2": ("bzip2", "-9"),
}


def main(rounds: int = 5) -> None:
    """Print the table: each way of packing, by hand and by us in turns."""
    archives = _archives(1.0, list(PACKERS))
    quarter = _archives(0.25, ["many-blocks.tar.xz"])[0]
    rested()
    rows: list[Row] = []
    # a file system for each: one that was full of small files is slow for everybody
    with fresh_filesystem(8) as hand, fresh_filesystem(8) as place:
        for archive in archives:
            many = rounds if archive.suffix == ".xz" else min(rounds, 3)
            rows += _in_turns(hand, place, archive, many)
        rows.append(_limit(place, archives[0], rounds))
        quarter_row = _in_turns(hand, place, quarter, min(rounds, 3))[0]
        quarter_row.name = "many-blocks.tar.xz, a quarter of it"
        rows.append(quarter_row)
        rows[0].memory_mb = peak_mb(_ours(archives[0], place / "seed"))
        shutil.rmtree(place / "seed")
    report("seeds", rows, _facts(archives[0]))


def _in_turns(hand: Path, place: Path, archive: Path, rounds: int) -> list[Row]:
    by_hand: list[float] = []
    synced: list[float] = []
    ours: list[float] = []
    command = _ours(archive, place / "seed")
    for _ in range(rounds):
        target = hand / "seed"
        target.mkdir()
        settle(archive)
        by_hand.append(seconds(["tar", "xpf", archive, "-C", target]))
        synced.append(by_hand[-1] + seconds(["sync", "-f", target]))
        shutil.rmtree(target)
        settle(archive)
        ours.append(seconds(command, stdout=subprocess.DEVNULL))
        shutil.rmtree(place / "seed")
    return [
        row(f"{archive.name}, beside tar xpf", ours, by_hand),
        row(f"{archive.name}, beside tar xpf and sync", ours, synced),
    ]


def _limit(place: Path, archive: Path, rounds: int) -> Row:
    """What cannot be beaten on this machine: decompress with all processors, and write nothing."""
    ours, alone = [], []
    for _ in range(rounds):
        settle(archive)
        alone.append(seconds(["xz", "-T0", "-dc", archive], stdout=subprocess.DEVNULL))
        settle(archive)
        ours.append(seconds(_ours(archive, place / "seed"), stdout=subprocess.DEVNULL))
        shutil.rmtree(place / "seed")
    return row(f"{archive.name}, beside xz -T0 -dc alone", ours, alone)


def _ours(archive: Path, target: Path) -> list[str | Path]:
    digest = archive.with_name(f"{archive.name}.sha512").read_text()
    return [sys.executable, "-m", "bench.extract_one", archive, digest, target]


def _archives(scale: float, names: list[str]) -> list[Path]:
    """The stage, packed in each of these ways; what was packed before is taken again."""
    folder = WORK / f"stage-{scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "stage.tar"
    for name in names:
        if not (folder / f"{name}.sha512").exists():
            if not plain.exists():
                _stage(folder, plain, int(_BYTES * scale))
            with (folder / name).open("wb") as out:
                subprocess.run([*PACKERS[name], "-c", plain], stdout=out, check=True)
            (folder / f"{name}.sha512").write_text(sha512(folder / name))
    plain.unlink(missing_ok=True)
    return [folder / name for name in names]


def _stage(folder: Path, plain: Path, size: int) -> None:
    """A tar of this machine's files, with the few that make a stage of it."""
    root = folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    for path in _chosen(size):
        copy = root / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    for name in ("sh", "env", "emerge"):
        (root / "usr/bin" / name).write_text(f"#!{name}\n")
    root.chmod(0o755)
    subprocess.run([*_TAR, "--file", plain, "-C", root, "."], check=True)
    shutil.rmtree(root)


def _chosen(size: int) -> Iterator[Path]:
    """Every other file of /usr, in the order of their names, until there are so many bytes."""
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
    listed = subprocess.check_output(["xz", "--robot", "-l", archive], text=True)
    _, _, blocks, packed, plain, *_ = listed.splitlines()[-1].split("\t")
    sizes = f"{int(packed) / 1e6:.0f} MB, as tar {int(plain) / 1e6:.0f} MB"
    return {"entries": f"{entries:,}", "blocks": blocks, "packed": sizes}
