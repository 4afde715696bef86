"""Measuring: seconds of whole processes, as medians of pairs, and the memory of process trees.

A benchmark is no test: a figure that is worse than yesterday's fails nothing.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.isolation import scratch

RESULTS = Path(__file__).parent / "results"
Command = Sequence[str | Path]


@dataclass(frozen=True)
class Size:
    """The extent of a benchmark: pairs in one run, and the scale of the generated data."""

    pairs: int
    scale: float = 1.0


@dataclass(frozen=True)
class Row:
    """One line of a table: `seconds` and `baseline` are medians, `baseline` of the usual way."""

    name: str
    seconds: float
    spread: float  # between the quickest and the slowest run
    runs: int
    baseline: float | None = None
    memory_mb: float | None = None

    @property
    def ratio(self) -> float | None:
        """The factor by which it is quicker than the baseline."""
        return self.baseline / self.seconds if self.baseline else None


@dataclass
class Table:
    """The rows of one benchmark: printed as they come, saved as `results`/NAME.json at the end."""

    name: str
    results: Path = RESULTS
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        columns = f"{'seconds':>9}{'+-':>7}{'usual way':>11}{'ratio':>8}{'peak MB':>9}"
        print(f"\n{self.name:48}{columns}", flush=True)

    def add(self, row: Row) -> Row:
        """Print a row."""
        base = f"{row.baseline:11.3f}{row.ratio:8.2f}" if row.baseline else " " * 19
        memory = f"{row.memory_mb:9.0f}" if row.memory_mb else ""
        line = f"{row.name:48}{row.seconds:9.3f}{row.spread / 2:7.3f}{base}{memory}"
        print(line.rstrip(), flush=True)
        self.rows.append(row)
        return row

    def save(self, facts: Mapping[str, str | int]) -> None:
        """Print the facts about what was measured, and write everything as JSON."""
        for name, value in facts.items():
            print(f"  {name}: {value}", flush=True)
        machine = {
            "processors": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "when": time.strftime("%Y-%m-%d"),
        }
        rows = [{**asdict(row), "ratio": row.ratio} for row in self.rows]
        text = json.dumps({"machine": machine, "facts": facts, "rows": rows}, indent=1)
        self.results.mkdir(parents=True, exist_ok=True)
        (self.results / f"{self.name}.json").write_text(text + "\n")


@dataclass(frozen=True)
class Bench:
    """A benchmark and its sizes: the full one, and a quick one with less data and fewer pairs."""

    run: Callable[[Table, Size], None]
    full: Size
    quick: Size


def progress(message: str) -> None:
    """Report on stderr what the benchmark is doing; the table alone goes to stdout."""
    sys.stderr.write(f"  {time.strftime('%H:%M:%S')} {message}\n")


def rounds(subject: str, count: int) -> Iterator[int]:
    """Count the rounds of a measurement, and report each on stderr."""
    for number in range(count):
        progress(f"{subject}, pair {number + 1} of {count}")
        yield number


def row(
    name: str,
    times: Sequence[float],
    baseline: Sequence[float] = (),
    memory_mb: float | None = None,
) -> Row:
    """Summarise the runs of a command and of its baseline, taken in turns, as medians."""
    return Row(
        name,
        statistics.median(times),
        max(times) - min(times),
        len(times),
        statistics.median(baseline) if baseline else None,
        memory_mb,
    )


def seconds(
    command: Command, *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> float:
    """Run a command; its seconds from start to end. Raises CalledProcessError when it fails."""
    words = [str(word) for word in command]
    start = time.perf_counter()
    subprocess.run(words, check=True, cwd=cwd, env=env, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def settle(*warm: Path) -> None:
    """Give each run the same start: nothing to be written back, no inodes in memory.

    The inodes and names of 300,000 new files slow whatever runs next by a third. The files in
    `warm`, and those in its folders, are read again, so that no run waits for the disk. They are
    read from the disk: the kernel caches what was written in larger pieces than what was read, and
    a program in small pieces takes longer to map.
    """
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    for path in warm:
        for file in (path, *path.rglob("*")):
            if file.is_file():
                with file.open("rb") as stream:
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    stream.read()


def populate_memory() -> None:
    """Touch all free memory once: a virtual machine gets each page from its host at first use.

    That costs several microseconds a page, and whatever runs first would pay for it.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, max(free - (2 << 30), 1 << 20), flags=flags).close()


def peak_mb(command: Command, *, env: Mapping[str, str] | None = None) -> float:
    """Run a command; the largest memory of it and all its children together (PSS), in MB, sampled.

    Raises CalledProcessError when it fails.
    """
    words = [str(word) for word in command]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=env)
    peak = [0.0]
    stop = threading.Event()

    def watch() -> None:
        previous: set[int] = set()
        while not stop.wait(0.02):
            family = set(_family(process.pid))
            # a process that has just been started may still share its parent's memory (vfork(2)),
            # which would then count twice
            processes = (family & previous) | {process.pid}
            peak[0] = max(peak[0], sum(map(_pss_mb, processes)))
            previous = family

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    stop.set()
    watcher.join()
    if status != 0:
        raise subprocess.CalledProcessError(status, words)
    return peak[0]


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))
    except OSError:
        return


def _pss_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


@contextmanager
def scratch_filesystem(gigabytes: float, folder: Path | None = None) -> Iterator[Path]:
    """Mount a new ext4, in an image in the scratch folder, while the block runs.

    The project's own file system ages with each 150,000 files that are written and deleted. After
    an error the kernel unmounts with the end of the mount namespace (bench.isolation).
    """
    folder = folder or scratch()
    image, place = folder / "image", folder / f"mount-{len(list(folder.iterdir()))}"
    place.mkdir()
    # every block written: a disk has its blocks, a sparse image gets them at the first write
    size = ("bs=1M", f"count={int(gigabytes * 1024)}", "oflag=direct")
    subprocess.run(["dd", "if=/dev/zero", f"of={image}", *size, "status=none"], check=True)
    # all at once: the kernel would write inode tables in the background, beside what is timed
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-i", "8192", "-E", lazy, image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    image.unlink()  # its space is free as soon as the loop device is, however the process ends
    # A disk has no page cache of its own. With the cache of the image beneath that of the file
    # system, everything is cached and written twice, at a time that the kernel chooses: a run that
    # syncs pays for that, a run that does not leaves it to the next one.
    device = subprocess.check_output(["findmnt", "-no", "SOURCE", place], text=True).strip()
    subprocess.run(["losetup", "--direct-io=on", device], check=True)
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()
