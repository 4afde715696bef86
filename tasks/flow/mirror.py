"""mirror: the distfiles that are served to others, and the groups that may have them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks import records
from tasks.errors import BinmillError, NotTrusted
from tasks.records import OVERLAY, TREE, Inputs, Key, MirrorRecord
from tasks.site import Site, identity
from tasks.system.files import locked, write_atomic
from tasks.system.terminal import say


def fill(site: Site, inputs: Inputs) -> MirrorRecord:
    """Add distfiles fetched by builds to the mirror; the record says what it has."""
    from tasks.serve import distfiles

    with locked(site.layout.busy("distfile"), "the mirror"):
        _sync(site, inputs)
    groups = ("public", *site.config.access.groups)
    names = {group: sorted(distfiles.names(site.layout.mirror(group))) for group in groups}
    return MirrorRecord({group: len(each) for group, each in names.items()}, identity(names))


def add(site: Site, files: Sequence[Path], group: str | None) -> None:
    """Add an administrator's files to a group's distfiles."""
    with locked(site.layout.busy("distfile"), "the mirror"):
        _add(site, files, group)


def sync(site: Site) -> None:
    """Add distfiles fetched by builds to the mirror now."""
    with locked(site.layout.busy("distfile"), "the mirror"):
        _sync(site, records.reading(site.layout, tree_keys(site)))


def tree_keys(site: Site) -> list[Key[Any]]:
    """The records of the locked tree and overlays, whose Manifests name the distfiles."""
    return [TREE(), *(OVERLAY(name) for name in site.config.overlays)]


def _add(site: Site, files: Sequence[Path], group: str | None) -> None:
    from tasks.serve import distfiles

    chosen = group or site.config.access.restricted
    known = ["public", *site.config.access.groups]
    if chosen not in known:
        raise BinmillError(
            f"there is no group {chosen!r}" if chosen else "which group may have it?",
            f"say --group with one of: {', '.join(known)}",
        )
    inputs = records.reading(site.layout, tree_keys(site))
    named = distfiles.listed_distfiles(_trees(site, inputs))
    for file in files:
        name = distfiles.add(file, named, site.layout.mirror(chosen))
        say(f"  {name}: fits its Manifest, for {chosen}")


def _sync(site: Site, inputs: Inputs) -> None:
    """Let in what chroots have fetched and anybody may have; delete what has long been unnamed."""
    from tasks.serve import distfiles

    layout = site.layout
    named = distfiles.listed_distfiles(_trees(site, inputs))
    public = layout.mirror("public")
    there = distfiles.names(public)
    new, refused = 0, []
    for name, source in _fetched(site):
        known = {dist: True for dist, free in named.get(name, {}).items() if free}
        if not known or name in there:
            continue
        try:
            distfiles.import_file(source, name, known, public)
            new += 1
        except (NotTrusted, FileNotFoundError):  # half a download, or worse; or just now gone
            refused.append(name)
        except BinmillError as error:
            refused.append(name)
            say(f"  {error.message}")
    write_atomic(public / "layout.conf", distfiles.LAYOUT_CONF)
    gone = 0
    for group in ("public", *site.config.access.groups):
        folder = layout.mirror(group)
        gone += len(
            distfiles.delete_outdated(folder, set(named), time.time(), site.config.mirror.keep_days)
        )
    say(f"  mirror: {new} new, {len(refused)} refused, {gone} deleted")
    for name in refused[:5]:
        say(f"  refused: {name!r} does not fit its Manifest")


def _fetched(site: Site) -> Iterator[tuple[str, Path]]:
    """What lies in every DISTDIR, by name; a chroot wrote it, so nothing is known of it.

    In that of a chroot in groups, links lead to the one of all (PORTAGE_RO_DISTDIRS).
    """
    layout = site.layout
    for entry in _entries(layout.distfiles):
        yield entry.name, entry
    for name in site.config.chroots:
        for entry in _entries(layout.restricted_distfiles(name)):
            if not entry.is_symlink():
                yield entry.name, entry


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _trees(site: Site, inputs: Inputs) -> list[Path]:
    """The exported tree and overlays; raises Stale for one that is not there yet."""
    return [site.layout.export(inputs[key].commit) for key in tree_keys(site)]
