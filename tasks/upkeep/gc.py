"""gc: list the parts of state/ that nothing names any more, with their sizes; delete them.

No task may run while they are moved to the trash, by one rename each: a build that began hours ago
may still have an older tree mounted. Frozen days, generations, the mirror's files and secrets are
never deleted.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks import clock, messages, text
from tasks.errors import BinmillError
from tasks.layout import INSTALL_ROOTS, Layout
from tasks.site import Site
from tasks.system.disk_usage import disk_size
from tasks.system.files import all_locked, empty_trash, move_to_trash
from tasks.system.notes import Note
from tasks.system.terminal import say
from tasks.upkeep.reachable import Artifacts, References, gather, packages, reachable

# Packages of a failed run, and of days to which one might go back.
KEEP_ENTRIES_DAYS = 30
_UNNAMED = Note("leftover-unnamed")
_OF_KILLED_RUN = Note("leftover-of-killed-run")


@dataclass(frozen=True)
class Leftover:
    """A path below state/ that may be deleted, and the reason."""

    path: Path
    reason: Note


def show(site: Site, artifacts: Artifacts) -> None:
    """List the leftovers with their sizes; delete nothing."""
    leftovers = plan(site, artifacts)
    total = sum(_list(site.layout, each, each.path) for each in leftovers)
    code = "gc-total" if leftovers else "gc-nothing"
    say(messages.sentence(code, {"leftovers": len(leftovers), "size": total}))


def delete(site: Site, artifacts: Artifacts) -> None:
    """Delete the leftovers; raises Busy while any task of the site runs."""
    layout = site.layout
    with all_locked(layout.locks):
        leftovers = plan(site, artifacts)
        trash = [each for each in leftovers if each.path == layout.trash]
        total = sum(_list(layout, each, each.path) for each in trash)  # before more is moved there
        places = [
            (each, move_to_trash(each.path, layout.trash))
            for each in leftovers
            if each not in trash
        ]
    total += sum(_list(layout, each, place) for each, place in places if place)
    empty_trash(layout.trash)
    code = "gc-deleted" if leftovers else "gc-nothing-deleted"
    say(messages.sentence(code, {"leftovers": len(leftovers), "size": total}))


def plan(site: Site, artifacts: Artifacts) -> list[Leftover]:
    """Find the leftovers, in the order of the layout; changes nothing."""
    references = gather(site, artifacts)
    needed = reachable(site.layout, references, artifacts)
    leftovers = (
        *_results(site, needed),
        *_stored(site, references),
        *_install_roots(site),
        *_without_owner(site, artifacts),
        *_unfinished(site, references),
    )
    return list({each.path: each for each in leftovers}.values())


def _results(site: Site, needed: frozenset[Path]) -> Iterator[Leftover]:
    """Find results, which lie under names made of their content, that nothing names."""
    state = site.layout.state
    for folder in ("exports", "seeds"):
        for path in _entries(state / folder):
            if path not in needed:
                yield Leftover(path, _UNNAMED)
    for folder in ("layers", "etc", "plans", "sets"):
        for owner in _entries(state / folder):
            if owner.name not in site.config.chroots and not _any_below(needed, owner):
                yield Leftover(owner, Note("leftover-of-chroot", {"name": owner.name}))
                continue
            for path in _entries(owner):
                if path not in needed:
                    yield Leftover(path, _UNNAMED)


def _stored(site: Site, references: References) -> Iterator[Leftover]:
    """Find what no entry of the store needs, and entries that no set and no recent run needs."""
    from tasks.buildroot import flat_layers
    from tasks.store.store import Store

    layout, oldest = site.layout, clock.now() - KEEP_ENTRIES_DAYS * 86400
    stored = dict(Store(layout).leftovers(packages(references), oldest))
    for path, code in stored.items():
        yield Leftover(path, Note(code))
    layers = {path.name for path in _entries(layout.store / "layers") if path not in stored}
    for path in flat_layers.unneeded(layout.flat_layers, layers.__contains__):
        yield Leftover(path, Note("leftover-flat-layer"))


def _install_roots(site: Site) -> Iterator[Leftover]:
    """Find what no install root has: layers of a killed run, lists of packages that left."""
    from tasks.publish import install_root

    for task, name in itertools.product(INSTALL_ROOTS, site.config.chroots):
        folder = site.layout.install_root(task, name)
        if task == "members" and not site.config.access.groups and folder.is_dir():
            yield Leftover(folder, _UNNAMED)
        elif folder.is_dir():
            with contextlib.suppress(BinmillError):  # the next run replaces a damaged one
                for path in install_root.unnamed(folder, install_root.read(folder)):
                    yield Leftover(path, _UNNAMED)


def _without_owner(site: Site, artifacts: Artifacts) -> Iterator[Leftover]:
    """Find files of chroots, overlays and tasks that config.toml does not have."""
    layout, config = site.layout, site.config
    for folder, names, code in (
        (layout.inside / "builds", set(config.chroots), "leftover-of-chroot"),
        (layout.state / "touched", set(config.chroots), "leftover-of-chroot"),
        *(
            (layout.state / task, set(config.chroots), "leftover-of-chroot")
            for task in INSTALL_ROOTS
        ),
        (layout.store / "own", set(config.chroots), "leftover-of-chroot"),
        (layout.overlays, {f"{name}.git" for name in config.overlays}, "leftover-of-overlay"),
    ):
        for path in _entries(folder):
            if path.name not in names and ".damaged" not in path.name:
                yield Leftover(path, Note(code, {"name": path.name.removesuffix(".git")}))
    names = {layout.record(task).stem for task in artifacts}
    for path in _entries(layout.records):
        if path.stem not in names or path.suffix not in (".json", ".before"):
            yield Leftover(path, Note("leftover-record"))
    names |= {layout.task_lock(f"enter:{name}").name for name in config.chroots}
    # other locks belong to no single artifact
    kinds = {
        "overlay",
        "enter",
        "failed",
        *(task.partition(":")[0] for task in artifacts if ":" in task),
    }
    for path in _entries(layout.locks):
        if path.name not in names and path.name.partition(".")[0] in kinds:
            yield Leftover(path, Note("leftover-lock"))


def _unfinished(site: Site, references: References) -> Iterator[Leftover]:
    """Find files of killed runs, failed buildroots, and what fsck has renamed."""
    layout, lock = site.layout, references.lock
    pinned_names = {
        Path(pin.path).name
        for pin in (lock.seeds.values() if lock else ())
        if not layout.seed(pin.sha512).is_dir()
    }
    for path in _entries(layout.downloads):
        if path.name.removeprefix(".").removesuffix(".partial") not in pinned_names:
            yield Leftover(path, Note("leftover-download"))
    for path in _entries(layout.work):
        yield Leftover(path, _OF_KILLED_RUN)
    for path in sorted(layout.state.glob("failed/*/*/*")):
        yield Leftover(path, Note("leftover-failed-buildroot"))
    for pattern in ("inside/builds/*/.*.tmp", "binhost/*/*/.*.tmp", ".*.tmp", "overlays/.*.tmp"):
        for path in sorted(layout.state.glob(pattern)):
            if path.parts[-3] != "builds" or path.parent.name in site.config.chroots:
                yield Leftover(path, _OF_KILLED_RUN)
    for pattern in ("*.damaged", "*.damaged.*", "overlays/*.damaged", "overlays/*.damaged.*"):
        for path in sorted(layout.state.glob(pattern)):
            yield Leftover(path, Note("leftover-damaged"))
    if _entries(layout.trash):
        yield Leftover(layout.trash, Note("leftover-trash"))


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted; none if it is a link."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _any_below(needed: frozenset[Path], folder: Path) -> bool:
    return any(path.is_relative_to(folder) for path in needed)


def _list(layout: Layout, each: Leftover, place: Path) -> int:
    """Print a leftover, which lies at `place` by now; returns its size in bytes."""
    size = disk_size(place)
    reason = messages.sentence(each.reason.code, each.reason.fields)
    say(f"  {text.size(size):>9}  {each.path.relative_to(layout.state)}: {reason}")
    return size
