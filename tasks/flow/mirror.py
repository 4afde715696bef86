"""mirror: the distfiles that this site serves, by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks import clock, records
from tasks.errors import BinmillError, NotTrusted
from tasks.records import OVERLAY, TREE, Inputs, Key, MirrorRecord
from tasks.site import Site, identity
from tasks.system.files import locked, write_atomic
from tasks.system.notes import note
from tasks.system.terminal import say


def fill(site: Site, inputs: Inputs) -> MirrorRecord:
    """Add distfiles fetched by builds to the mirror."""
    from tasks.serve import distfiles

    with locked(site.layout.task_lock("distfile"), "the mirror"):
        _sync(site, inputs)
    names = {group: sorted(distfiles.names(site.layout.mirror(group))) for group in _groups(site)}
    return MirrorRecord({group: len(each) for group, each in names.items()}, identity(names))


def add(site: Site, files: Sequence[Path], group: str | None) -> None:
    """Add an administrator's files to a group's distfiles; None: to [access] restricted."""
    from tasks.serve import distfiles

    target_group, groups = group or site.config.access.restricted, _groups(site)
    if target_group is None:
        raise BinmillError("distfile-needs-group", groups=groups)
    if target_group not in groups:
        raise BinmillError("distfile-group-unknown", group=target_group, groups=groups)
    with locked(site.layout.task_lock("distfile"), "the mirror"):
        inputs = records.reading(site.layout, tree_keys(site))
        listed = distfiles.listed_distfiles(_trees(site, inputs))
        for file in files:
            name = distfiles.add(file, listed, site.layout.mirror(target_group))
            say(f"  {name}: matches its Manifest, for {target_group}")


def sync(site: Site) -> None:
    """Add distfiles fetched by builds to the mirror now."""
    with locked(site.layout.task_lock("distfile"), "the mirror"):
        _sync(site, records.reading(site.layout, tree_keys(site)))


def tree_keys(site: Site) -> list[Key[Any]]:
    """The records of the locked tree and overlays, whose Manifests list the distfiles."""
    return [TREE(), *(OVERLAY(name) for name in site.config.overlays)]


def _sync(site: Site, inputs: Inputs) -> None:
    """Import public files fetched by chroots; delete files that have long been unlisted."""
    from tasks.serve import distfiles

    layout = site.layout
    listed = distfiles.listed_distfiles(_trees(site, inputs))
    public = layout.mirror("public")
    existing = distfiles.names(public)
    new, refused = 0, []
    for name, source in _fetched_files(site):
        dists = {dist: True for dist, is_public in listed.get(name, {}).items() if is_public}
        if not dists or name in existing:
            continue
        try:
            distfiles.import_file(source, name, dists, public)
            new += 1
        except (NotTrusted, FileNotFoundError):  # half a download, or worse; or just deleted
            refused.append(name)
        except BinmillError as error:
            refused.append(name)
            note("distfile-not-imported", cause=error.message)
    write_atomic(public / "layout.conf", distfiles.LAYOUT_CONF)
    now, keep_days, deleted = clock.now(), site.config.mirror.keep_days, 0
    for group in _groups(site):
        folder = layout.mirror(group)
        deleted += len(distfiles.delete_outdated(folder, set(listed), now, keep_days))
    note("mirror-synced", new=new, refused=len(refused), deleted=deleted)
    if refused:
        note("distfiles-refused", names=refused)


def _groups(site: Site) -> list[str]:
    return ["public", *site.config.access.groups]


def _fetched_files(site: Site) -> Iterator[tuple[str, Path]]:
    """The entries of every DISTDIR, by name; chroots wrote them, so they may be anything.

    In the DISTDIR of a chroot in groups, links lead to the shared one (PORTAGE_RO_DISTDIRS).
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
    """The exported tree and overlays; raises Stale if one is missing."""
    return [site.layout.export(inputs[key].commit) for key in tree_keys(site)]
