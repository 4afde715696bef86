"""Power loss: at any moment each file on the disk is the old or the new one, and never torn.

The site lies on an ext4 image. doit is stopped before and after each of its fsync and rename
calls, and the image is copied at that moment, without data that is only in memory. Each copy is
mounted, which replays its journal, and the same commands continue there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.layout import Layout
from tests.kit.programs import PROGRAMS
from tests.kit.project import PROJECT
from tests.kit.sample_site import ON_DEMAND, TASKS, SampleSite, SampleUpstream, sample_site

pytestmark = pytest.mark.usefixtures("needs_sandbox")
STEPS = (*ON_DEMAND, *TASKS)


def image(path: Path) -> Path:
    """An ext4 file system in a file, with a journal and no lazy work of its own."""
    with path.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(
        [
            "mkfs.ext4",
            "-q",
            "-J",
            "size=4",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            "-N",
            "8192",
            path,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return path


@contextmanager
def mount_image(file: Path, place: Path) -> Iterator[tuple[str | Path, ...]]:
    """Mount an image in a namespace of its own; yields the words that run a program there.

    Only synced data is written to it: the kernel writes the rest later than a test takes.
    """
    process = subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            'mount -o loop,commit=600 "$0" "$1" && echo ready && exec sleep 3600',
            file,
            place,
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        inside = f"--mount=/proc/{process.pid}/ns/mnt"
        yield ("nsenter", inside, "env", f"--chdir={PROJECT}")
    finally:
        process.kill()
        process.communicate()


def in_namespace(prefix: tuple[str | Path, ...], site: SampleSite) -> SampleSite:
    """The same site, by a path that leads into a namespace."""
    holder = str(prefix[1]).split("/")[2]
    top = Path(f"/proc/{holder}/root{site.layout.site}")
    return SampleSite(Layout(site=top, state=top / "state"))


def stops(process: subprocess.Popen[str]) -> Iterator[None]:
    """Yield each time the process has stopped itself, and continue it, until it has ended."""
    while True:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            process.returncode = os.waitstatus_to_exitcode(status)
            return
        yield
        process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def copies(
    sample_upstream: SampleUpstream, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SampleSite, list[Path]]:
    """A site, and copies of its disk at each boundary of a run that builds everything."""
    folder = tmp_path_factory.mktemp("power")
    site = sample_site(folder / "site")
    site.layout.site.mkdir()
    disk, images = image(folder / "disk"), list[Path]()
    with mount_image(disk, site.layout.site) as prefix:
        in_namespace(prefix, site).write(sample_upstream.config())
        subprocess.run([*prefix, "sync", "-f", site.layout.config], check=True)
        # the Python of doit stops at each boundary, so the copy is of that moment
        hooked = (*prefix, f"PYTHONPATH={PROGRAMS / 'stop_at_boundaries'}")
        for step in STEPS:
            process = site.start(step, prefix=hooked)
            for _ in stops(process):
                time.sleep(0.005)  # requested writes reach the disk
                images.append(folder / f"copy-{len(images)}")
                subprocess.run(["cp", "--sparse=always", disk, images[-1]], check=True)
            printed, _ = process.communicate()
            assert process.returncode == 0, printed
    return site, images


def copy_numbers(count: int, every: bool) -> list[int]:
    """The numbers of the copies to test: a sample, or every one."""
    return list(range(count)) if every else sorted({count * n // 12 for n in range(12)})


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_the_old_or_the_new(
    copies: tuple[SampleSite, list[Path]], prebuilt_site: SampleSite, every: bool
) -> None:
    site, images = copies
    assert len(images) > 50
    wanted = prebuilt_site.records()
    for number in copy_numbers(len(images), every):
        with mount_image(images[number], site.layout.site) as prefix:
            inside = in_namespace(prefix, site)
            for path in inside.layout.records.glob("*.json"):
                assert isinstance(json.loads(path.read_bytes()), dict), (number, path)
            printed = site.doit("fsck", prefix=prefix)
            assert printed.startswith("no damage: "), (number, printed)
            site.doit(*STEPS, prefix=prefix)
            assert inside.records() == wanted, number
