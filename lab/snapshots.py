"""Snapshots of the lab's repository for two days, named, dated and signed like Gentoo's."""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from lab import keys, tree
from lab.upstream import REPOSITORY, SOURCES, Upstream
from tasks.system.command import run
from tasks.system.files import digests, remove_tree, write_atomic

# The snapshot of day D is created at 00:45 UTC on the next day.
_CREATED = time(0, 45, tzinfo=UTC)
_RFC_DATE = "%a, %d %b %Y %H:%M:%S +0000"


def creation_time(day: date) -> datetime:
    """Return the time at which the snapshot of a day is created."""
    return datetime.combine(day + timedelta(days=1), _CREATED)


def newest_day(now: datetime) -> date:
    """Return the newest day whose snapshot exists at that time."""
    return (now.astimezone(UTC) - timedelta(days=1, minutes=45)).date()


def make_snapshot(
    lab: Upstream, day: date, layers: list[str], distfiles: dict[str, tree.Distfile], folder: Path
) -> list[str]:
    """Create the snapshot of one day in `folder`, unless it exists; return its packages.

    The archive appears last, after its signature.
    """
    name = f"{REPOSITORY}-{day:%Y%m%d}"
    scratch = lab.work / f"snapshot-{day:%Y%m%d}"
    remove_tree(scratch, lab.trash)
    top = scratch / name
    packages = tree.render([SOURCES / layer for layer in layers], distfiles, top)
    if (folder / f"{name}.tar.xz").exists():
        remove_tree(scratch, lab.trash)
        return packages
    tree.add_licenses(top)
    tree.add_manifests(top, distfiles, thin=False)
    tree.add_cache(lab, top, len(packages))
    moment = creation_time(day)
    _write_timestamps(top, moment)
    tree.sign_tree(lab, top, moment)
    _pack(lab, top, moment, folder)
    remove_tree(scratch, lab.trash)
    return packages


def _write_timestamps(top: Path, moment: datetime) -> None:
    date_text = moment.strftime(_RFC_DATE)
    write_atomic(top / "metadata/timestamp.x", f"{moment.timestamp():.0f} {date_text}\n")
    write_atomic(top / "metadata/timestamp.chk", f"{date_text}\n")


def _pack(lab: Upstream, top: Path, moment: datetime, folder: Path) -> None:
    archive = top.with_name(f"{top.name}.tar")
    owner = ("--owner=portage:250", "--group=portage:250", "--numeric-owner")
    order = ("--sort=name", f"--mtime=@{moment.timestamp():.0f}", "--format=gnu")
    modes = ("--mode=u=rwX,go=rX",)
    run("tar", "--create", "--file", archive, *owner, *order, *modes, "-C", top.parent, top.name)
    uncompressed = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    run("xz", "-6", archive, env={**os.environ, "XZ_OPT": ""})
    packed = archive.with_name(f"{archive.name}.xz")
    compressed = digests(packed, "md5")["md5"]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / packed.name
    write_atomic(Path(f"{target}.md5sum"), f"{compressed}  {packed.name}\n")
    write_atomic(Path(f"{target}.umd5sum"), f"{uncompressed}  {archive.name}\n")
    keys.sign_detached(lab, "snapshots", packed, Path(f"{target}.gpgsig"))
    shutil.move(packed, target)
