"""Checks of what records name: one for each kind of artifact. They read only.

Each yields a line for each flaw, and reports the bytes that it has read to `seen`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasks import records
from tasks.errors import BinmillError
from tasks.records import (
    OVERLAY,
    TREE,
    BinpkgsRecord,
    ChrootRecord,
    EtcRecord,
    Key,
    OverlayRecord,
    SeedRecord,
    TreeRecord,
)
from tasks.site import Site, identity
from tasks.system.files import digests

Seen = Callable[[int], None]


def flaws(site: Site, key: Key[Any], record: Any, seen: Seen) -> Iterator[str]:
    """The flaws of what a record names, beyond that it exists.

    Raises BinmillError where there is nothing sound to compare it with.
    """
    match record:
        case TreeRecord() | OverlayRecord():
            yield from _export(site, key.name, record.commit, seen)
        case SeedRecord():
            yield from _seed(site, record, seen)
        case ChrootRecord():
            yield from _layer(site, key.name, record, seen)
        case EtcRecord():
            yield from _etc(site, record, seen)
        case BinpkgsRecord():
            yield from _set(site, key.name, record, seen)


def _export(site: Site, overlay: str, commit: str, seen: Seen) -> Iterator[str]:
    from tasks.snapshot import export

    repository = site.layout.overlay(overlay) if overlay else site.layout.tree
    if (repository / "HEAD").is_file():  # else the repository itself is reported elsewhere
        yield from export.differences(repository, commit, site.layout.export(commit), seen)


def _seed(site: Site, record: SeedRecord, seen: Seen) -> Iterator[str]:
    from tasks.system import tree_manifest

    layout = site.layout
    try:
        yield from tree_manifest.differences(
            layout.seed(record.sha512), layout.seed_listing(record.sha512), seen
        )
    except tree_manifest.Damaged as error:
        yield f"cannot be checked: {error.message}"


def _layer(site: Site, name: str, record: ChrootRecord, seen: Seen) -> Iterator[str]:
    from tasks.system.tree_manifest import texts

    own, *below = record.unmodified(name)  # nothing says what manual changes should be
    content = texts(site.layout.state / own)
    seen(sum(map(len, content.values())))
    if identity([below, content])[:32] != Path(own).name:
        yield f"{own} is not what it was made of"


def _etc(site: Site, record: EtcRecord, seen: Seen) -> Iterator[str]:
    from tasks.portage import etc_portage
    from tasks.system.tree_manifest import texts

    folder = site.layout.state / record.path
    content = texts(folder)
    seen(sum(map(len, content.values())))
    link = folder / etc_portage.PROFILE
    target = str(link.readlink()) if link.is_symlink() else ""
    ids = [identity([files, target])[:32] for files in etc_portage.mirrorless_variants(content)]
    if folder.name not in ids:
        yield f"{record.path} is not what was generated"


def _set(site: Site, name: str, record: BinpkgsRecord, seen: Seen) -> Iterator[str]:
    from tasks.builder import collect
    from tasks.portage import index
    from tasks.portage.index import INDEX

    if collect.set_id(record.packages) != record.set:
        yield "its record does not list the packages of its set"
    folder = site.layout.binpkgs(name) / record.set
    for package in record.packages:
        path = folder / package.path
        try:
            if digests(path, "sha512")["sha512"] != package.sha512:
                yield f"{package.path} has changed"
        except OSError as error:
            yield f"{package.path}: {error.strerror}"
        else:
            seen(path.stat().st_size)
    try:
        _, stanzas = index.parse((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stanzas = []
    listed = {stanza.get("PATH") for stanza in stanzas}
    if unlisted := [each.path for each in record.packages if each.path not in listed]:
        yield f"{INDEX} does not list {unlisted[0]}"


def mirror(site: Site, group: str, seen: Seen) -> Iterator[tuple[str, str]]:
    """The distfiles of a group that differ from their Manifest: name, and a line.

    Distfiles that no Manifest of the locked tree and overlays names cannot be checked.
    """
    from tasks.serve import distfiles

    folder = site.layout.mirror(group)
    held = distfiles.names(folder)
    if not held:
        return
    keys: list[Key[Any]] = [TREE(), *(OVERLAY(name) for name in site.config.overlays)]
    try:
        trees = [site.layout.export(records.load(site.layout, key).commit) for key in keys]
    except BinmillError:
        return
    wanted = distfiles.listed_distfiles(trees)
    for name in sorted(held & wanted.keys()):
        try:
            seen(distfiles.check(folder / name, name, wanted[name]).size)
        except (BinmillError, OSError) as error:
            yield name, str(getattr(error, "message", error))
