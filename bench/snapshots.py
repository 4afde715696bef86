"""Freezing a snapshot, against emerge-webrsync's steps and git, and against decompression alone."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from bench import portage_tree
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
from tasks.site import CONFIG_VARIABLE
from tasks.snapshot.archive import tree_files
from tasks.snapshot.repository import repack
from tasks.system.files import digests_of

FIRST = date(2026, 11, 19)
NEXT = FIRST + timedelta(days=1)
USUAL_FREEZE = Path(__file__).with_name("usual_freeze.sh")
MANY_DAYS = 30
CONFIG = """
[keys.k]
file = "k"
fingerprints = ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
[mirrors]
gentoo = ["http://127.0.0.1:{port}"]
[tree]
key = "k"
[seeds]
[chroots]
"""


def run(table: Table, size: Size) -> None:
    """Compare the first and the next day in turns, then other sizes, then many days in a row."""
    first, following = _two_days(size.scale)
    populate_memory()
    # a file system for each: one that was full of small files is slow for both
    with (
        scratch_filesystem(1 + 7 * size.scale) as usual,
        scratch_filesystem(1 + 3 * size.scale) as place,
    ):
        _compare(table, usual, place, [first, following], size.pairs)
        for factor in (0.25, 3.0):
            _at_factor(table, place, size.scale, factor)
        _nothing_newer(table, place, size.pairs)
        days = _many_days(place, size.scale / 4)
    in_step = next(each for each in table.rows if each.name == STEP)
    facts = {
        "files": f"{_count(first):,} and {_count(following):,}",
        "packed": f"{following.stat().st_size / 1e6:.0f} MB in one block",
    }
    step = {"the step of the next day": f"{1 / (in_step.ratio or 1):.2f} times as long as xz -dc"}
    table.save(facts | days | step)


BENCH = Bench(run, full=Size(5), quick=Size(2, scale=0.08))
STEP = "the step of the next day, against xz -dc alone"


@dataclass
class Times:
    """Seconds of the runs of each kind, in the order of the rounds."""

    first: list[float] = field(default_factory=list)
    usual_first: list[float] = field(default_factory=list)
    following: list[float] = field(default_factory=list)
    usual_following: list[float] = field(default_factory=list)
    same: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    xz: list[float] = field(default_factory=list)


def freeze_command(repository: Path, archive: Path) -> list[str | Path]:
    """Build the command that freezes an archive in a process of its own (bench.freeze_one)."""
    return [sys.executable, "-m", "bench.freeze_one", repository, archive, _digest(archive)]


@functools.cache
def _digest(archive: Path) -> str:
    with archive.open("rb") as stream:
        return digests_of(stream, "sha512")["sha512"]


def _two_days(scale: float, compress: tuple[str, ...] = portage_tree.ONE_BLOCK) -> list[Path]:
    """Write the archives of two days of a tree, once; later runs use the same files."""
    folder = WORK / f"scale-{scale:g}"
    targets = [folder / portage_tree.file_name(day) for day in (FIRST, NEXT)]
    if not all(target.exists() for target in targets):
        progress(f"generating two days of a tree, at {scale:g} of the real one's size, once")
        folder.mkdir(parents=True, exist_ok=True)
        tree = portage_tree.packages(scale)
        for day, target in zip((FIRST, NEXT), targets, strict=True):
            portage_tree.write(tree, day, scratch(), scale, compress).rename(target)
            tree = portage_tree.next_day(tree)
        portage_tree.clear_caches()
    return targets


def _compare(table: Table, usual: Path, place: Path, archives: list[Path], pairs: int) -> None:
    times = Times()
    for _ in rounds("two days", pairs):
        _round(times, usual, place, *archives)
    memory = [peak_mb(freeze_command(place / "tree.git", archive)) for archive in archives]
    shutil.rmtree(place / "tree.git")
    table.add(row("freeze, first time", times.first, times.usual_first, memory[0]))
    table.add(row("freeze, next day", times.following, times.usual_following, memory[1]))
    table.add(row("freeze, the same bytes again", times.same))
    table.add(row(STEP, times.step, times.xz))
    table.add(row("the same with start and end of a process", times.following, times.xz))


def _round(times: Times, usual: Path, place: Path, first: Path, following: Path) -> None:
    tree, repository = usual / "work-tree", place / "tree.git"
    for archive, day, own, by_hand in (
        (first, FIRST, times.first, times.usual_first),
        (following, NEXT, times.following, times.usual_following),
    ):
        settle(archive)
        by_hand.append(seconds(["sh", USUAL_FREEZE, tree, archive, f"{day:%Y%m%d}"]))
        shutil.rmtree(tree.with_name("work-tree.extracted"))
        settle(archive, repository)
        start = time.perf_counter()
        output = subprocess.check_output(freeze_command(repository, archive), text=True)
        own.append(time.perf_counter() - start)
    times.step.append(float(output.split()[-1]))
    settle(following)
    times.xz.append(seconds(["xz", "-dc", following]))
    times.same.append(seconds(freeze_command(repository, following)))
    shutil.rmtree(tree)
    shutil.rmtree(repository)


def _at_factor(table: Table, place: Path, scale: float, factor: float) -> None:
    """Freeze the next day of a smaller or larger tree, once; the memory is that of both days."""
    first, following = _two_days(scale * factor, portage_tree.QUICK_BLOCK)
    repository, copy = place / "tree.git", place / "copy.git"
    first_mb = peak_mb(freeze_command(repository, first))
    shutil.copytree(repository, copy)
    own = seconds(freeze_command(repository, following))
    alone = seconds(["xz", "-dc", following])
    memory = max(first_mb, peak_mb(freeze_command(copy, following)))
    shutil.rmtree(repository)
    shutil.rmtree(copy)
    name = f"next day at {factor:g} times the size, against xz"
    table.add(row(name, [own], [alone], memory))


def _many_days(place: Path, scale: float) -> dict[str, str]:
    """Freeze thirty days in a row; the size of the repository, and the time of tidying it up."""
    progress(f"freezing {MANY_DAYS} days in a row")
    repository, folder = place / "tree.git", place / "days"
    folder.mkdir()
    tree, tidying = portage_tree.packages(scale), 0.0
    for number in range(MANY_DAYS):
        day = FIRST + timedelta(days=number)
        archive = portage_tree.write(tree, day, folder, scale, portage_tree.QUICK_BLOCK)
        seconds(freeze_command(repository, archive))
        archive.unlink()
        start = time.perf_counter()
        repack(repository)
        tidying += time.perf_counter() - start
        tree = portage_tree.next_day(tree, seed=number)
    size, packs = _megabytes(repository), len(list(repository.glob("objects/pack/*.pack")))
    subprocess.run(["git", "-C", repository, "repack", "-q", "-a", "-d", "-F"], check=True)
    return {
        "30 days": f"{size:.1f} MB in {packs} packs, "
        f"{size / _megabytes(repository):.2f} of a full repack",
        "tidying a day": f"{tidying / MANY_DAYS:.3f} s",
    }


def _megabytes(repository: Path) -> float:
    return sum(f.stat().st_size for f in repository.glob("objects/**/*") if f.is_file()) / 1e6


def _nothing_newer(table: Table, place: Path, pairs: int) -> None:
    """Time `doit snapshot`, the whole process, while the mirror has nothing newer."""
    day = datetime.now(UTC).date() - timedelta(days=3)
    folder = place / "site"
    folder.mkdir()
    tree = portage_tree.packages(0.01)
    archive = portage_tree.write(tree, day, folder, 0.01, portage_tree.QUICK_BLOCK)
    seconds(freeze_command(folder / "state/tree.git", archive))
    mirror = folder / "mirror"
    (mirror / "snapshots").mkdir(parents=True)
    (mirror / f"snapshots/{archive.name}.gpgsig").write_bytes(b"x")
    config = folder / "config.toml"
    with _serve(mirror) as port:
        config.write_text(CONFIG.format(port=port))
        doit = [str(Path(sys.executable).with_name("doit")), "snapshot"]
        env = {**os.environ, CONFIG_VARIABLE: str(config), "NO_PROXY": "127.0.0.1"}
        times = [seconds(doit, env=env) for _ in range(pairs)]
    table.add(row("doit snapshot, nothing newer (loopback)", times))


@contextmanager
def _serve(folder: Path) -> Iterator[int]:
    """Serve a folder on a port of 127.0.0.1 while the block runs."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing: the table is the output."""


def _count(archive: Path) -> int:
    with archive.open("rb") as stream, tree_files(stream, archive.name) as files:
        return sum(1 for _ in files)
