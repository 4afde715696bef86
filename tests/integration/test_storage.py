"""Storage that fails under the real doit: full, out of inodes, read-only.

The site lies on a small tmpfs in a mount namespace of its own, so nothing is left on the host.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.layout import Layout
from tests.kit.sample_site import ON_DEMAND, TASKS, SampleSite, SampleUpstream
from tests.kit.small_disk import Disk, Fill, fill_bytes, fill_inodes, small_disk

pytestmark = pytest.mark.usefixtures("needs_sandbox")
# One command after the other, as an operator would continue after each failure.
STEPS = (*ON_DEMAND, *TASKS)


@dataclass(frozen=True)
class Elsewhere:
    """A mount namespace; `site` is a small site in it, `top` its path outside of it."""

    disk: Disk
    site: SampleSite

    @property
    def top(self) -> Path:
        return self.disk.top

    def run(self, *words: str | Path) -> None:
        subprocess.run([*self.disk.prefix, *words], check=True)

    def doit(self, *words: str, code: int | None = 0) -> tuple[int, str]:
        """Run doit there; returns its exit code and its output, which is never a traceback."""
        with self.site.start(*words, prefix=self.disk.prefix) as process:
            printed, _ = process.communicate(timeout=300)
        assert "Traceback" not in printed
        assert "BUG" not in printed
        assert code is None or process.returncode == code, printed
        return process.returncode, printed

    def records(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.top.glob("state/records/*.json")}


@pytest.fixture
def elsewhere(tmp_path: Path, sample_upstream: SampleUpstream) -> Iterator[Elsewhere]:
    """A site on a tmpfs of 256 MB."""
    folder = tmp_path / "site"
    with small_disk(folder, "size=256m,nr_inodes=20k") as disk:
        tmpfs_site = Elsewhere(disk, SampleSite(Layout(site=folder, state=folder / "state")))
        SampleSite(Layout(site=tmpfs_site.top, state=tmpfs_site.top / "state")).write(
            sample_upstream.config()
        )
        yield tmpfs_site


def soak_param(fill: Fill, left: int) -> Any:
    return pytest.param(fill, left, marks=pytest.mark.soak)


@pytest.mark.parametrize(
    ("fill", "left"),
    [
        (fill_bytes, 40 << 10),
        (fill_inodes, 12),
        *(soak_param(fill_bytes, kilobytes << 10) for kilobytes in (0, 4, 8, 16, 24, 64)),
        *(soak_param(fill_inodes, count) for count in (0, 1, 2, 4, 8, 16)),
    ],
)
def test_full_at_each_step(
    elsewhere: Elsewhere, prebuilt_site: SampleSite, fill: Fill, left: int
) -> None:
    """Each step fails in one line, changes nothing, and succeeds once there is space."""
    failed = 0
    for step in STEPS:
        before = elsewhere.records()
        fill(elsewhere.top, left)
        code, printed = elsewhere.doit(step, code=None)
        if code != 0:
            failed += 1
            assert code in (1, 3), printed
            assert re.search(
                "no (space|inodes) (is |are )?left on (the )?device", printed, re.IGNORECASE
            ), printed
            assert before.items() <= elsewhere.records().items()
        subprocess.run(["rm", "-r", elsewhere.top / "ballast"], check=True)
        elsewhere.doit(step)
    assert failed >= 2
    assert elsewhere.records() == prebuilt_site.records()
    assert elsewhere.doit("fsck")[1].startswith("no damage: ")


def test_read_only(elsewhere: Elsewhere, prebuilt_site: SampleSite) -> None:
    """Commands that only look work; tasks say why they cannot."""
    for step in STEPS:
        before = elsewhere.records()
        elsewhere.run("mount", "-o", "remount,ro", elsewhere.site.layout.site)
        _, printed = elsewhere.doit(step, code=1)
        assert "Read-only file system" in printed
        elsewhere.doit("status")
        elsewhere.doit("why")
        elsewhere.run("mount", "-o", "remount,rw", elsewhere.site.layout.site)
        assert elsewhere.records() == before
        elsewhere.doit(step)
    assert elsewhere.records() == prebuilt_site.records()


def test_gc_makes_space_where_no_inode_is_left(elsewhere: Elsewhere) -> None:
    """Without a lock file, and without an inode for one."""
    elsewhere.doit("snapshot")
    elsewhere.run("rm", "-r", elsewhere.site.layout.locks)
    leftover = elsewhere.top / "state/exports/old"
    leftover.mkdir(parents=True)
    (leftover / "file").touch()
    fill_inodes(elsewhere.top, 0)
    assert "deleted 1 leftover" in elsewhere.doit("gc", "--yes")[1]
    assert not leftover.exists()
