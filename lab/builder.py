"""Builds the lab: a list of steps, each of which skips what is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from lab import keys, overlay, seed, snapshots, stage, tree
from lab.upstream import (
    FLAVOUR,
    LAB,
    OVERLAY,
    PROFILE,
    REPOSITORY,
    ROLES,
    SOURCES,
    Facts,
    Upstream,
)
from tasks.errors import Stale
from tasks.system.command import require_root
from tasks.system.files import empty_trash, locked, remove_tree, write_atomic

_USERS_OF_THE_LAB = ("__init__.py", "__main__.py", "demo.py", "mirror.py", "site.py")


@dataclass(frozen=True)
class Calendar:
    """The time at which the build of a lab started; all its dates follow from it."""

    start: datetime

    @property
    def days(self) -> tuple[date, date]:
        """The published day and the upcoming one."""
        second = snapshots.newest_day(self.start)
        return date.fromordinal(second.toordinal() - 1), second


def build_lab(directory: Path) -> Upstream:
    """Build the lab in `directory`, or finish a build that was killed; return its paths.

    Takes about two minutes and 1 GB; a complete lab is left as it is. Raises HostLacks when a
    program is missing, CommandFailed (with a log to read) when one fails.
    """
    require_root("make the lab's stage")
    lab = Upstream(directory.resolve())
    lab.work.mkdir(parents=True, exist_ok=True)
    with locked(lab.directory / "lab.lock", "the lab"):
        sources = _digest_of_sources()
        with contextlib.suppress(Stale):
            if lab.facts().sources == sources:
                return lab
        if lab.facts_file.exists():
            _start_over(lab)
        empty_trash(lab.trash)
        calendar = _calendar(lab)
        _progress("generating OpenPGP keys")
        keys.make_keys(lab)
        _progress("fetching source archives")
        distfiles = tree.gather(lab)
        tree.mirror_distfiles(lab, distfiles)
        _progress("installing the stage's root directory")
        stage.make_root(lab, lambda root: seed.install_packages(lab, root, distfiles))
        _progress("packing the stage")
        archive = stage.pack(lab, calendar.start)
        _progress("creating snapshots and the overlay")
        packages = _repositories(lab, calendar, distfiles)
        _write_facts(lab, calendar, archive, packages, sources)
        empty_trash(lab.trash)
    return lab


def delete_lab(directory: Path) -> None:
    """Delete the lab and the demo's site; refuses while something is mounted below."""
    target = directory.resolve()
    if target.is_dir():
        require_root("delete what root made")
        remove_tree(target, target.with_name(f".{target.name}.trash"))
        target.with_name(f".{target.name}.trash").rmdir()


def _repositories(
    lab: Upstream, calendar: Calendar, distfiles: dict[str, tree.Distfile]
) -> dict[str, list[str]]:
    first, second = calendar.days
    created = snapshots.creation_time(first)
    overlay.make_remote(lab, created)
    return {
        f"{REPOSITORY}-{first:%Y%m%d}": snapshots.make_snapshot(
            lab, first, ["tree"], distfiles, lab.snapshots
        ),
        f"{REPOSITORY}-{second:%Y%m%d}": snapshots.make_snapshot(
            lab, second, ["tree", "next"], distfiles, lab.upcoming
        ),
        OVERLAY: overlay.make_overlay(lab, distfiles, created),
    }


def _calendar(lab: Upstream) -> Calendar:
    """Read the calendar, or start one now: a build that goes on after a kill has the same dates."""
    if not lab.calendar.exists():
        now = datetime.now(UTC).replace(microsecond=0)
        write_atomic(lab.calendar, json.dumps({"begun": now.isoformat()}))
    return Calendar(datetime.fromisoformat(json.loads(lab.calendar.read_text())["begun"]))


def _digest_of_sources() -> str:
    """Hash all that determines the lab's content, so that an edited lab is built again."""
    total = hashlib.sha256()
    modules = [path for path in LAB.glob("*.py") if path.name not in _USERS_OF_THE_LAB]
    files = [*modules, *(path for path in SOURCES.rglob("*") if path.is_file())]
    for file in sorted(files):
        total.update(f"{file.relative_to(LAB)}\0".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _start_over(lab: Upstream) -> None:
    """Delete all but the keys, which configs pin, and the source archives."""
    _progress("its sources have changed: building it again")
    lab.facts_file.unlink()
    keep = {lab.keys, lab.keyring.parent, lab.archives, lab.trash}
    for folder in (lab.upstream, lab.work):
        for entry in folder.iterdir():
            if entry in keep:
                continue
            if entry.is_dir():
                remove_tree(entry, lab.trash)
            else:
                entry.unlink()


def _write_facts(
    lab: Upstream,
    calendar: Calendar,
    archive: str,
    packages: Mapping[str, Sequence[str]],
    sources: str,
) -> None:
    facts = Facts(
        sources=sources,
        fingerprints={role: keys.fingerprint(lab, role) for role in ROLES},
        days=[f"{day:%Y%m%d}" for day in calendar.days],
        flavour=FLAVOUR,
        stage=archive,
        portage=stage.PORTAGE.rpartition("=")[2],
        profile=PROFILE,
        packages=packages,
    )
    write_atomic(lab.facts_file, json.dumps(asdict(facts), indent=2) + "\n")


def _progress(step: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} lab: {step}\n")
