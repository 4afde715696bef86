"""Build the lab: a list of steps, each of which skips what is done."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from lab import keys, overlay, snapshots, stage, tree
from lab.upstream import FLAVOUR, LAB, OVERLAY, PROFILE, REPOSITORY, ROLES, SOURCES, Upstream
from tasks.system.command import require_root
from tasks.system.files import empty_trash, locked, remove_tree, write_atomic


@dataclass(frozen=True)
class Calendar:
    """When the lab was begun; every date in it follows from that, also after a kill."""

    begun: datetime

    @property
    def days(self) -> tuple[date, date]:
        """The published day and the upcoming one."""
        second = snapshots.newest_day(self.begun)
        return date.fromordinal(second.toordinal() - 1), second


def build_lab(directory: Path) -> Upstream:
    """Build the lab in `directory` or finish what a killed run began; returns where all is.

    Takes about two minutes and 1 GB; nothing when it is done already. Raises HostLacks when
    a program is missing, CommandFailed (with a log to read) when one fails.
    """
    require_root("make the lab's stage")
    lab = Upstream(directory.resolve())
    lab.work.mkdir(parents=True, exist_ok=True)
    with locked(lab.directory / "lab.lock", "the lab"):
        made_from = _sources()
        if lab.facts_file.exists():
            if lab.facts().get("sources") == made_from:
                return lab
            _begin_again(lab)
        empty_trash(lab.trash)
        calendar = _calendar(lab)
        _say("keys")
        keys.make_keys(lab)
        _say("source archives")
        distfiles = tree.gather(lab)
        tree.mirror_distfiles(lab, distfiles)
        _say("the stage's root")
        stage.make_root(lab)
        _say("the stage's archive")
        archive = stage.pack(lab, calendar.begun)
        _say("snapshots and the overlay")
        packages = _repositories(lab, calendar, distfiles)
        _facts(lab, calendar, archive, packages, made_from)
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
    made = snapshots.made_at(first)
    overlay.make_remote(lab, made)
    return {
        f"{REPOSITORY}-{first:%Y%m%d}": snapshots.make(
            lab, first, ["tree"], distfiles, lab.snapshots
        ),
        f"{REPOSITORY}-{second:%Y%m%d}": snapshots.make(
            lab, second, ["tree", "next"], distfiles, lab.upcoming
        ),
        OVERLAY: overlay.make(lab, distfiles, made),
    }


def _calendar(lab: Upstream) -> Calendar:
    if not lab.calendar.exists():
        now = datetime.now(UTC).replace(microsecond=0)
        write_atomic(lab.calendar, json.dumps({"begun": now.isoformat()}))
    return Calendar(datetime.fromisoformat(json.loads(lab.calendar.read_text())["begun"]))


def _sources() -> str:
    """A digest of all that the lab is made from, so that an edited lab is made anew."""
    total = hashlib.sha256()
    files = [*LAB.glob("*.py"), *(path for path in SOURCES.rglob("*") if path.is_file())]
    for file in sorted(files):
        total.update(f"{file.relative_to(LAB)}\0".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _begin_again(lab: Upstream) -> None:
    """Forget all but the keys, which configs pin, and the source archives."""
    _say("its sources changed: it is made anew")
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


def _facts(
    lab: Upstream,
    calendar: Calendar,
    archive: str,
    packages: dict[str, list[str]],
    sources: str,
) -> None:
    facts = {
        "sources": sources,
        "fingerprints": {role: keys.fingerprint(lab, role) for role in ROLES},
        "days": [f"{day:%Y%m%d}" for day in calendar.days],
        "flavour": FLAVOUR,
        "stage": archive,
        "portage": stage.PORTAGE.rpartition("=")[2],
        "profile": PROFILE,
        "packages": packages,
    }
    write_atomic(lab.facts_file, json.dumps(facts, indent=2) + "\n")


def _say(what: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} lab: {what}\n")
