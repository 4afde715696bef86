"""Snapshots of the lab's repository for two days, named, dated and signed like the real ones."""

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

# Day D's snapshot is made at 00:45 UTC on the day after.
_MADE_AT = time(0, 45, tzinfo=UTC)
_RFC_DATE = "%a, %d %b %Y %H:%M:%S +0000"


def made_at(day: date) -> datetime:
    """When the snapshot of a day is made."""
    return datetime.combine(day + timedelta(days=1), _MADE_AT)


def newest_day(now: datetime) -> date:
    """The newest day whose snapshot exists by now."""
    return (now.astimezone(UTC) - timedelta(days=1, minutes=45)).date()


def make(
    lab: Upstream, day: date, layers: list[str], distfiles: dict[str, tree.Distfile], place: Path
) -> list[str]:
    """Make the snapshot of one day in `place`, unless it is there; the packages in it.

    The archive itself appears last, after its signature.
    """
    name = f"{REPOSITORY}-{day:%Y%m%d}"
    scratch = lab.work / f"snapshot-{day:%Y%m%d}"
    remove_tree(scratch, lab.trash)
    top = scratch / name
    packages = tree.render([SOURCES / layer for layer in layers], distfiles, top)
    if (place / f"{name}.tar.xz").exists():
        remove_tree(scratch, lab.trash)
        return packages
    tree.add_licenses(top)
    tree.add_manifests(top, distfiles, thin=False)
    tree.add_cache(lab, top, len(packages))
    moment = made_at(day)
    _stamp(top, moment)
    tree.sign_tree(lab, top, moment)
    _pack(lab, top, moment, place)
    remove_tree(scratch, lab.trash)
    return packages


def _stamp(top: Path, moment: datetime) -> None:
    written = moment.strftime(_RFC_DATE)
    write_atomic(top / "metadata/timestamp.x", f"{moment.timestamp():.0f} {written}\n")
    write_atomic(top / "metadata/timestamp.chk", f"{written}\n")


def _pack(lab: Upstream, top: Path, moment: datetime, place: Path) -> None:
    archive = top.with_name(f"{top.name}.tar")
    owner = ("--owner=portage:250", "--group=portage:250", "--numeric-owner")
    order = ("--sort=name", f"--mtime=@{moment.timestamp():.0f}", "--format=gnu")
    modes = ("--mode=u=rwX,go=rX",)
    run("tar", "--create", "--file", archive, *owner, *order, *modes, "-C", top.parent, top.name)
    uncompressed = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    run("xz", "-6", archive, env={**os.environ, "XZ_OPT": ""})
    packed = archive.with_name(f"{archive.name}.xz")
    compressed = digests(packed, "md5")["md5"]
    place.mkdir(parents=True, exist_ok=True)
    beside = place / packed.name
    write_atomic(Path(f"{beside}.md5sum"), f"{compressed}  {packed.name}\n")
    write_atomic(Path(f"{beside}.umd5sum"), f"{uncompressed}  {archive.name}\n")
    keys.sign_detached(lab, "snapshots", packed, Path(f"{beside}.gpgsig"))
    shutil.move(packed, beside)
