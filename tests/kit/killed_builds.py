"""Builds of a small set of which doit, the first process of a sandbox or a child is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.system.files import remove_tree
from tests.kit.build_runs import Run, last_run, run
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite
from tests.kit.processes import leftovers_of_kill

CHROOT = "killed"
WAYS = ("doit", "first process", "child")
_SLOW = """
src_compile() { local each; for each in {1..10}; do sleep 0.1 || die "killed"; done; }
src_install() { insinto /usr/share/${PN}; newins - answer <<< "${CATEGORY}/${PF}"; }"""
EBUILDS = {
    "one-1": _SLOW,
    "two-1": _SLOW,
    "three-1": f'DEPEND="{CATEGORY}/one"{_SLOW}',
    "four-1": f'DEPEND="{CATEGORY}/two"{_SLOW}',
    "five-1": f'DEPEND="{CATEGORY}/three {CATEGORY}/four"{_SLOW}',
}
PACKAGES = frozenset(f"{CATEGORY}/{pf.rpartition('-')[0]}" for pf in EBUILDS)


@dataclass(frozen=True)
class Kill:
    """A run that was killed: the command line of the process that was hit, "" if it was too late.

    `left` are processes, mounts, loop devices and control groups afterwards.
    """

    way: str
    delay: float
    hit: str
    code: int
    run: Run
    left: Sequence[str]

    def __str__(self) -> str:
        return f"{self.way} after {self.delay:.2f} s ({self.hit[:100]!r}): {self.code}, {self.left}"


@dataclass(frozen=True)
class KilledBuild:
    """The build of a set whose runs were killed, except the last one."""

    kills: Sequence[Kill]
    last: Run


def create_chroot(site: LabSite, folder: Path, chroot: dict[str, object]) -> None:
    """Add the overlay and the chroot of the set to a site, and plan it."""
    write_overlay(folder, CHROOT, EBUILDS, {})
    tables: dict[str, Mapping[str, object]] = {
        "build": {"packages": 2},
        f"overlays.{CHROOT}": {"url": str(folder)},
        f"chroots.{CHROOT}": {**chroot, "overlays": [CHROOT], "packages": sorted(PACKAGES)},
    }
    site.change(**tables)
    site.doit(f"plan:{CHROOT}")


def build_from_scratch(
    site: LabSite, ways: Sequence[str] = (), seconds: float = 0, dice: random.Random | None = None
) -> KilledBuild:
    """Build the set with an empty store; one run is killed in each of these ways.

    The kill comes at a random moment within so many seconds after the first package has started.
    """
    remove_tree(site.layout.store, site.layout.trash)
    site.doit("forget", f"binpkgs:{CHROOT}")
    dice = dice or random.Random()  # noqa: S311 - to be repeated, not to be secret
    kills = [_killed_run(site, way, dice.uniform(0, seconds), dice) for way in ways]
    return KilledBuild(kills, run(site, CHROOT))


def _killed_run(site: LabSite, way: str, delay: float, dice: random.Random) -> Kill:
    """Kill a run some seconds after its first package has started."""
    latest = site.layout.logs / "latest"
    before = latest.readlink()
    with site.start(f"binpkgs:{CHROOT}") as process:
        while process.poll() is None and (
            latest.readlink() == before or not first_processes(process.pid)
        ):
            time.sleep(0.1)
        time.sleep(delay)
        hit = _hit(process, way, dice)
        output = process.communicate(timeout=1500)[0]
    left = [*leftovers_of_kill(site.layout), *loop_devices(site.layout.state)]
    killed = Run("", set(), set(), {}, set(), set(), set())
    if latest.readlink() != before:
        killed = last_run(site, CHROOT)
    return Kill(way, delay, hit, process.returncode, replace(killed, output=output), left)


def _hit(process: subprocess.Popen[str], way: str, dice: random.Random) -> str:
    """Kill a process of a run; returns its command line."""
    first = first_processes(process.pid)
    candidates = {
        "doit": [process.pid],
        "first process": first,
        "child": [child for each in first for child in descendants(each)],
    }[way]
    if process.poll() is not None or not candidates:
        return ""
    victim = dice.choice(sorted(candidates))
    hit = ""
    with contextlib.suppress(OSError):  # it has just ended
        hit = Path(f"/proc/{victim}/cmdline").read_text(errors="replace").replace("\0", " ")
        os.kill(victim, signal.SIGKILL)
    return hit


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, directly or not."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = status.read_text().rpartition(")")[2].split()
            children.setdefault(int(words[1]), []).append(int(status.parent.name))
    result, pending = [], [pid]
    while pending:
        below = children.get(pending.pop(), [])
        result += below
        pending += below
    return result


def first_processes(pid: int) -> list[int]:
    """The descendants of a process that are the first of a PID namespace: of a sandbox."""
    first = []
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{each}/status").read_text()
            numbers = status.partition("\nNSpid:")[2].partition("\n")[0].split()
            if len(numbers) > 1 and numbers[-1] == "1":
                first.append(each)
    return first


def loop_devices(state: Path) -> list[str]:
    """Loop devices of files below a folder."""
    devices = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if str(state) in file.read_text():
                devices.append(str(file))
    return devices


def control_groups() -> set[Path]:
    """Control groups of runs that have ended; the next build should delete them."""
    groups = Path("/sys/fs/cgroup").glob("**/binmill-*-*")
    return {each for each in groups if not Path("/proc", each.name.split("-")[1]).exists()}
