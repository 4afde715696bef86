"""Timing for benchmarks: whole processes, in pairs, medians; memory of a process and its children.

Nothing here is a test: a figure that is worse than yesterday's fails nothing.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
WORK = Path(__file__).parent / "work"


@dataclass
class Row:
    """One line of a table: `seconds` are medians; `baseline` is the usual way's, if it has one."""

    name: str
    seconds: float
    spread: float  # between the quickest and the slowest run
    runs: int
    baseline: float | None = None
    memory_mb: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times quicker than the baseline."""
        return self.baseline / self.seconds if self.baseline else None


def seconds(command: Sequence[str | Path], **more: Any) -> float:
    """How long a command takes, started to ended; raises CalledProcessError when it fails."""
    start = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, **more)
    return time.perf_counter() - start


def settle(*warm: Path) -> None:
    """The same start for each: nothing to be written back, no names and nodes of files in memory.

    What 300,000 new files leave there slows whatever is run next by a third. The files in `warm`,
    and what is in folders of them, are read again, since no run is to wait for the disk: from the
    disk, for the kernel keeps what was written in larger pieces than what was read, and mapping a
    program of small ones takes longer.
    """
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    for path in warm:
        for file in (path, *path.rglob("*")):
            if file.is_file():
                with file.open("rb") as stream:
                    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    stream.read()


def rested() -> None:
    """Touch all free memory once: a virtual machine gets each page from its host at first use.

    That costs several microseconds a page, and whoever runs first would pay it for all.
    """
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with mmap.mmap(-1, max(available - (2 << 30), 1 << 20)) as memory:
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1


def row(name: str, times: list[float], baseline: list[float] | None = None) -> Row:
    """Medians of the runs of a command and of its baseline, made in turns."""
    return Row(
        name,
        statistics.median(times),
        max(times) - min(times),
        len(times),
        statistics.median(baseline) if baseline else None,
    )


def peak_mb(command: Sequence[str | Path]) -> float:
    """The largest memory of a command and all its children together (PSS), in MB, sampled."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    peak = [0.0]
    ended = threading.Event()

    def watch() -> None:
        known: set[int] = set()
        while not ended.wait(0.02):
            family = set(_family(process.pid))
            # one that has just been started may still be in its parent's memory (vfork(2)): all
            # of that would count twice
            settled = (family & known) | {process.pid}
            peak[0] = max(peak[0], sum(map(_pss_mb, settled)))
            known = family

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    ended.set()
    watcher.join()
    if status != 0:
        raise SystemExit(f"{command[0]} failed")
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
def fresh_filesystem(gigabytes: int) -> Iterator[Path]:
    """A new ext4 in an image: deleting and making 150,000 files ages the one that is there."""
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="fs-") as name:
        image, place = Path(name, "image"), Path(name, "mount")
        place.mkdir()
        # all of it written: a disk has its blocks, an image with holes gets them at the first write
        size = ("bs=1M", f"count={gigabytes << 10}", "oflag=direct")
        subprocess.run(["dd", "if=/dev/zero", f"of={image}", *size, "status=none"], check=True)
        # all of it now: the kernel would write inode tables in the background, beside what is timed
        lazy = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-i", "8192", "-E", lazy, image], check=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        # a disk has no page cache of its own. With the image's beneath that of the file system, all
        # is kept and written twice, and at a time that is the kernel's to choose: whoever syncs
        # pays for that, whoever does not leaves it to the next
        device = subprocess.check_output(["findmnt", "-no", "SOURCE", place], text=True).strip()
        subprocess.run(["losetup", "--direct-io=on", device], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)


def report(name: str, rows: list[Row], facts: dict[str, Any]) -> None:
    """Print the table and keep it as bench/results/NAME.json."""
    print(f"\n{name}: {', '.join(f'{key} {value}' for key, value in facts.items())}")
    print(f"{'':44}{'seconds':>9}{'+-':>7}{'usual way':>11}{'ratio':>8}{'peak MB':>9}")
    for each in rows:
        base = f"{each.baseline:11.3f}{each.ratio:8.2f}" if each.baseline else " " * 19
        memory = f"{each.memory_mb:9.0f}" if each.memory_mb else ""
        print(f"{each.name:44}{each.seconds:9.3f}{each.spread / 2:7.3f}{base}{memory}")
    machine = {
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%d"),
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(
        {
            "machine": machine,
            "facts": facts,
            "rows": [{**asdict(each), "ratio": each.ratio} for each in rows],
        },
        indent=1,
    )
    (RESULTS / f"{name}.json").write_text(text + "\n")
