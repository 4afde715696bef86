"""Freezing a snapshot, against the guide's way and against decompression alone."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from bench import portage_tree
from bench.measure import WORK, Row, fresh_filesystem, peak_mb, report, rested, row, seconds, settle
from tasks.snapshot.archive import tree_files
from tasks.snapshot.repository import repack
from tasks.system.files import digests_of

FIRST = date(2026, 11, 19)
NEXT = FIRST + timedelta(days=1)
GUIDE = Path(__file__).with_name("guide.sh")
QUICK = ("xz", "-T2", "-0", "-c")


def main(rounds: int = 5) -> None:
    """Print the table of freezing: the whole tree five times in turns, then how it grows."""
    one, two = _days(1.0)
    rested()
    # a file system for each way: one that was full of small files is slow for everybody
    with fresh_filesystem(8) as guide, fresh_filesystem(4) as place:
        rows = _in_turns(guide, place, one, two, rounds)
        beside = 1 / (rows[3].ratio or 1)
        rows += [_larger(place, scale) for scale in (0.25, 3.0)]
        rows.append(_nothing_newer(place, rounds))
        facts = _facts(one, two) | _thirty_days(place)
        facts["the step of the next day"] = f"{beside:.2f} times as long as xz -dc"
    report("snapshots", rows, facts)


def _days(scale: float, compress: tuple[str, ...] = ("xz", "-T1", "-6", "-c")) -> list[Path]:
    folder = WORK / f"scale-{scale}"
    folder.mkdir(parents=True, exist_ok=True)
    before = portage_tree.packages(scale)
    after = portage_tree.next_day(before)
    made = [
        portage_tree.write(tree, day, folder, scale, compress)
        for tree, day in ((before, FIRST), (after, NEXT))
    ]
    portage_tree.forget()
    return made


def freezing(repository: Path, archive: Path) -> list[str | Path]:
    """The command that freezes an archive in a process of its own; see bench.freeze_one."""
    return [sys.executable, "-m", "bench.freeze_one", repository, archive, _digest(archive)]


@functools.cache
def _digest(archive: Path) -> str:
    with archive.open("rb") as stream:
        return digests_of(stream, "sha512")["sha512"]


def _in_turns(other: Path, place: Path, one: Path, two: Path, rounds: int) -> list[Row]:
    ours: dict[str, list[float]] = {"first": [], "next": [], "same": []}
    guide: dict[str, list[float]] = {"first": [], "next": []}
    step: list[float] = []
    alone: list[float] = []
    for _ in range(rounds):
        tree, repository = other / "work-tree", place / "tree.git"
        for what, archive, tag in (("first", one, FIRST), ("next", two, NEXT)):
            settle(archive)
            guide[what].append(seconds(["sh", GUIDE, tree, archive, f"{tag:%Y%m%d}"]))
            shutil.rmtree(tree.with_name("work-tree.extracted"))
            settle(archive, repository)
            start = time.perf_counter()
            said = subprocess.check_output(freezing(repository, archive), text=True)
            ours[what].append(time.perf_counter() - start)
        step.append(float(said.split()[-1]))
        settle(two)
        alone.append(seconds(["xz", "-dc", two], stdout=subprocess.DEVNULL))
        ours["same"].append(seconds(freezing(repository, two), stdout=subprocess.DEVNULL))
        shutil.rmtree(tree)
        shutil.rmtree(repository)
    rows = [
        row("freeze, first time", ours["first"], guide["first"]),
        row("freeze, next day", ours["next"], guide["next"]),
        row("freeze, the same bytes again", ours["same"]),
        row("the step of the next day, beside xz -dc alone", step, alone),
        row("the same with a process's start and end", ours["next"], alone),
    ]
    for each, archive in zip(rows, (one, two), strict=False):
        each.memory_mb = peak_mb(freezing(place / "tree.git", archive))
    shutil.rmtree(place / "tree.git")
    return rows


def _larger(place: Path, scale: float) -> Row:
    """The next day of a smaller or larger tree: once, and the memory of both days."""
    one, two = _days(scale, QUICK)
    repository = place / "tree.git"
    first_mb = peak_mb(freezing(repository, one))
    kept = shutil.copytree(repository, place / "kept.git")
    took = seconds(freezing(repository, two), stdout=subprocess.DEVNULL)
    alone = seconds(["xz", "-dc", two], stdout=subprocess.DEVNULL)
    found = row(f"next day at {scale:g} times the size, beside xz", [took], [alone])
    found.memory_mb = max(first_mb, peak_mb(freezing(kept, two)))
    shutil.rmtree(repository)
    shutil.rmtree(kept)
    return found


def _thirty_days(place: Path) -> dict[str, str]:
    """How large the repository of a quarter tree is after thirty days, and what tidying cost."""
    repository, folder = place / "tree.git", place / "days"
    folder.mkdir()
    tree, spent = portage_tree.packages(0.25), 0.0
    for number in range(30):
        archive = portage_tree.write(tree, FIRST + timedelta(days=number), folder, 0.25, QUICK)
        subprocess.run(freezing(repository, archive), check=True, stdout=subprocess.DEVNULL)
        archive.unlink()
        start = time.perf_counter()
        repack(repository)
        spent += time.perf_counter() - start
        tree = portage_tree.next_day(tree, seed=number)
    kept, packs = _megabytes(repository), len(list(repository.glob("objects/pack/*.pack")))
    subprocess.run(["git", "-C", repository, "repack", "-q", "-a", "-d", "-F"], check=True)
    return {
        "30 days": f"{kept:.1f} MB in {packs} packs, "
        f"{kept / _megabytes(repository):.2f} of a full repack",
        "tidying a day": f"{spent / 30:.3f} s",
    }


def _megabytes(repository: Path) -> float:
    return sum(f.stat().st_size for f in repository.glob("objects/**/*") if f.is_file()) / 1e6


def _nothing_newer(place: Path, rounds: int) -> Row:
    """`doit snapshot`, the whole process, where the mirror has nothing newer than is frozen."""
    day = datetime.now(UTC).date() - timedelta(days=3)
    folder = place / "site"
    folder.mkdir()
    archive = portage_tree.write(portage_tree.packages(0.01), day, folder, 0.01, QUICK)
    subprocess.run(
        freezing(folder / "state/tree.git", archive), check=True, stdout=subprocess.DEVNULL
    )
    mirror = folder / "mirror/snapshots"
    mirror.mkdir(parents=True)
    (mirror / f"{archive.name}.gpgsig").write_bytes(b"x")
    handler = functools.partial(_Quiet, directory=str(mirror.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = _CONFIG.format(port=server.server_address[1])
        (folder / "config.toml").write_text(config)
        doit = [str(Path(sys.executable).with_name("doit")), "snapshot"]
        env = {**os.environ, "BINMILL_CONFIG": str(folder / "config.toml"), "NO_PROXY": "127.0.0.1"}
        times = [seconds(doit, env=env, stdout=subprocess.DEVNULL) for _ in range(rounds)]
        server.shutdown()
    return row("doit snapshot, nothing newer (loopback)", times)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


_CONFIG = """
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


def _facts(one: Path, two: Path) -> dict[str, str]:
    def count(archive: Path) -> int:
        with archive.open("rb") as stream, tree_files(stream, archive.name) as files:
            return sum(1 for _ in files)

    return {
        "files": f"{count(one):,} and {count(two):,}",
        "packed": f"{two.stat().st_size / 1e6:.0f} MB in one block",
    }
