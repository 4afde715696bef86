"""Checks of the results that records name, one for each kind of artifact; they only read.

Each yields a note for each flaw, and reports to `on_read` how many bytes it has read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    PlanRecord,
    SeedRecord,
    TreeRecord,
)
from tasks.site import Site, identity
from tasks.system.files import digests, sha256
from tasks.system.notes import Note

if TYPE_CHECKING:
    from tasks.store.built import Built

OnRead = Callable[[int], None]
_LINES = 20  # of a layer that is quite another one


@dataclass(frozen=True)
class StoreFlaws:
    """The flaws of one package of the store, and the files to delete, so that it is built again."""

    name: str
    flaws: Sequence[Note]
    files: Sequence[Path]


def flaws(site: Site, key: Key[Any], record: Any, on_read: OnRead) -> Iterator[Note]:
    """Compare the results of a record with it; yields a note for each flaw.

    Raises BinmillError where there is nothing intact to compare them with.
    """
    match record:
        case TreeRecord() | OverlayRecord():
            yield from _export(site, key.name, record.commit, on_read)
        case SeedRecord():
            yield from _seed(site, record, on_read)
        case ChrootRecord():
            yield from _layer(site, key.name, record, on_read)
        case EtcRecord():
            yield from _etc(site, record, on_read)
        case PlanRecord():
            yield from _plan(site, record, on_read)
        case BinpkgsRecord():
            yield from _set(site, key.name, record, on_read)


def reported_flaw(line: str) -> Note:
    """A flaw in the words of the package that found it."""
    return Note("flaw-reported", {"line": line})


def _export(site: Site, overlay: str, commit: str, on_read: OnRead) -> Iterator[Note]:
    from tasks.snapshot import export

    repository = site.layout.overlay(overlay) if overlay else site.layout.tree
    if (repository / "HEAD").is_file():  # else the repository itself is reported elsewhere
        target = site.layout.export(commit)
        yield from map(reported_flaw, export.differences(repository, commit, target, on_read))


def _seed(site: Site, record: SeedRecord, on_read: OnRead) -> Iterator[Note]:
    from tasks.system import tree_manifest

    seed, listing = site.layout.seed(record.sha512), site.layout.seed_listing(record.sha512)
    try:
        yield from map(
            reported_flaw,
            tree_manifest.differences(seed, listing, on_read, chosen=tree_manifest.CAPABILITIES),
        )
    except tree_manifest.Damaged as error:
        yield Note("flaw-not-checkable", {"cause": error.message})


def _layer(site: Site, name: str, record: ChrootRecord, on_read: OnRead) -> Iterator[Note]:
    from tasks.system.tree_manifest import texts

    own, *below = record.unmodified(name)  # manual changes have nothing to compare them with
    content = texts(site.layout.state / own)
    on_read(sum(map(len, content.values())))
    if identity([below, content])[:32] != Path(own).name:
        yield Note("flaw-layer-changed", {"path": own})


def _etc(site: Site, record: EtcRecord, on_read: OnRead) -> Iterator[Note]:
    from tasks.portage import etc_portage
    from tasks.system.tree_manifest import texts

    folder = site.layout.state / record.path
    content = texts(folder)
    on_read(sum(map(len, content.values())))
    link = folder / etc_portage.PROFILE
    target = str(link.readlink()) if link.is_symlink() else ""
    ids = [identity([files, target])[:32] for files in etc_portage.mirrorless_variants(content)]
    if folder.name not in ids:
        yield Note("flaw-etc-changed", {"path": record.path})


def _plan(site: Site, record: PlanRecord, on_read: OnRead) -> Iterator[Note]:
    path = site.layout.state / record.path
    if sha256(path) != record.plan:
        yield Note("flaw-plan-changed", {"path": record.path})
    on_read(path.stat().st_size)


def _set(site: Site, name: str, record: BinpkgsRecord, on_read: OnRead) -> Iterator[Note]:
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.store import collect

    if collect.set_id(record.packages) != record.set:
        yield Note("flaw-set-differs")
    folder = site.layout.binpkgs(name) / record.set
    for package in record.packages:
        path = folder / package.path
        try:
            if digests(path, "sha512")["sha512"] != package.sha512:
                yield Note("flaw-package-changed", {"path": package.path})
        except OSError as error:
            cause = error.strerror
            yield Note("flaw-package-unreadable", {"path": package.path, "cause": cause})
        else:
            on_read(path.stat().st_size)
    try:
        _, stanzas = index.parse((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stanzas = []
    paths = {stanza.get("PATH") for stanza in stanzas}
    if unlisted := [each.path for each in record.packages if each.path not in paths]:
        yield Note("flaw-index-incomplete", {"index": INDEX, "path": unlisted[0]})


def stored(site: Site, at: Callable[[str], object], on_read: OnRead) -> Iterator[StoreFlaws]:
    """Read the whole store; yields the flaws of each entry, package and layer.

    `at` is called with the name of each before it is read.
    """
    from tasks.store.store import Store

    store = Store(site.layout)
    entries = store.entries()
    packages: dict[Built, list[Path]] = {}
    for path, entry in entries.items():
        if entry is None or path != site.layout.store_entry(entry.key):
            yield StoreFlaws(f"store {path.name}", [Note("flaw-store-entry")], [path])
        else:
            packages.setdefault(entry.built, []).append(path)
    layers: dict[str, list[Note]] = {}
    for built, paths in packages.items():
        at(f"store {built.cpv}-{built.build_id}")
        flaws = list(_stored_package(site, built, on_read))
        if built.layer and built.layer not in layers:
            lines = store.layer_differences(built.layer, on_read)
            layers[built.layer] = [reported_flaw(line) for line in itertools.islice(lines, _LINES)]
        flaws += layers.get(built.layer, [])
        if flaws:
            name = f"store {built.cpv}-{built.build_id}"
            yield StoreFlaws(name, flaws, [*paths, *sorted(store.paths([built]))])


def _stored_package(site: Site, built: Built, on_read: OnRead) -> Iterator[Note]:
    path = site.layout.store_package(built.sha512)
    short = str(path.relative_to(site.layout.state))
    if not path.exists():
        yield Note("flaw-store-lacks", {"path": short})
        return
    try:
        if digests(path, "sha512")["sha512"] != built.sha512:
            yield Note("flaw-package-changed", {"path": short})
        on_read(built.size)
    except OSError as error:
        yield Note("flaw-package-unreadable", {"path": short, "cause": error.strerror})


def install_root(folder: Path, on_read: OnRead) -> Iterator[Note]:
    """Compare an install root with its listings; yields a note for each of the first flaws."""
    from tasks.publish import install_root

    try:
        root = install_root.read(folder)
        lines = install_root.flaws(folder, root, on_read) if root else iter(())
        yield from map(reported_flaw, itertools.islice(lines, _LINES))
    except BinmillError as error:
        yield reported_flaw(error.message)


def mirror(site: Site, group: str, on_read: OnRead) -> Iterator[tuple[str, Note]]:
    """Compare the distfiles of a group with their Manifests; yields names and flaws.

    Distfiles that no Manifest of the locked tree and overlays lists cannot be checked.
    """
    from tasks.serve import distfiles

    folder = site.layout.mirror(group)
    names = distfiles.names(folder)
    if not names:
        return
    keys: list[Key[Any]] = [TREE(), *(OVERLAY(name) for name in site.config.overlays)]
    try:
        trees = [site.layout.export(records.load(site.layout, key).commit) for key in keys]
    except BinmillError:
        return
    listed = distfiles.listed_distfiles(trees)
    for name in sorted(names & listed.keys()):
        try:
            on_read(distfiles.check(folder / name, name, listed[name]).size)
        except (BinmillError, OSError) as error:
            yield name, reported_flaw(str(getattr(error, "message", error)))
