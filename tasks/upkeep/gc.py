"""gc: what nothing names any more is listed with its size, then put away and deleted.

It needs the site for itself while things are put away, by one rename each: a build that began
hours ago may still have an older tree mounted. Frozen days, generations, the mirror's files and
secrets are never touched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks import text
from tasks.layout import Layout
from tasks.site import Site
from tasks.system.files import all_locked, empty_trash, put_away
from tasks.system.terminal import say
from tasks.upkeep.reachable import Artifacts, Known, gather, reachable

_UNNAMED = "neither the lock, a record nor a generation names it"


@dataclass(frozen=True)
class Leftover:
    """Something below state/ that may go, and why."""

    path: Path
    why: str


def show(site: Site, artifacts: Artifacts) -> None:
    """List what nothing names, with its size; delete nothing."""
    leftovers = plan(site, artifacts)
    total = sum(_list(site.layout, each, each.path) for each in leftovers)
    if leftovers:
        them = "it" if len(leftovers) == 1 else "them"
        count = text.count(len(leftovers), "leftover")
        say(f"{count}, {text.size(total)}; `doit gc --yes` deletes {them}")
    else:
        say("nothing to delete: everything is needed")


def delete(site: Site, artifacts: Artifacts) -> None:
    """Delete what nothing names; raises Busy while any task of the site runs."""
    layout = site.layout
    with all_locked(layout.locks):
        leftovers = plan(site, artifacts)
        old = [each for each in leftovers if each.path == layout.trash]
        total = sum(_list(layout, each, each.path) for each in old)  # before more comes in
        places = [
            (each, put_away(each.path, layout.trash)) for each in leftovers if each not in old
        ]
    total += sum(_list(layout, each, place) for each, place in places if place)
    empty_trash(layout.trash)
    if leftovers:
        say(f"{len(leftovers)} deleted, {text.size(total)}")
    else:
        say("nothing to delete")


def plan(site: Site, artifacts: Artifacts) -> list[Leftover]:
    """What may go, in the order of the layout; nothing is changed."""
    known = gather(site, artifacts)
    wanted = reachable(site.layout, known, artifacts)
    found = (*_results(site, wanted), *_of_nobody(site, artifacts), *_unfinished(site, known))
    return list({each.path: each for each in found}.values())


def _results(site: Site, wanted: frozenset[Path]) -> Iterator[Leftover]:
    """Results under names made of their content: those that nothing names."""
    state = site.layout.state
    for folder in ("exports", "seeds"):
        for path in _entries(state / folder):
            if path not in wanted:
                yield Leftover(path, _UNNAMED)
    for folder in ("layers", "etc", "sets"):
        for owner in _entries(state / folder):
            if owner.name not in site.config.chroots and not _any_below(wanted, owner):
                yield Leftover(owner, f"there is no chroot {owner.name} any more")
                continue
            for path in _entries(owner):
                if path not in wanted:
                    yield Leftover(path, _UNNAMED)


def _of_nobody(site: Site, artifacts: Artifacts) -> Iterator[Leftover]:
    """What belongs to a chroot, an overlay or a task that config.toml does not have."""
    layout, config = site.layout, site.config
    for folder, names, noun in (
        (layout.inside / "builds", set(config.chroots), "chroot"),
        (layout.state / "touched", set(config.chroots), "chroot"),
        (layout.overlays, {f"{name}.git" for name in config.overlays}, "overlay"),
    ):
        for path in _entries(folder):
            if path.name not in names and ".damaged" not in path.name:
                which = path.name.removesuffix(".git")
                yield Leftover(path, f"there is no {noun} {which} any more")
    names = {layout.record(task).stem for task in artifacts}
    for path in _entries(layout.records):
        if path.stem not in names or path.suffix not in (".json", ".before"):
            yield Leftover(path, "the record of a task that does not exist")
    names |= {layout.task_lock(f"enter:{name}").name for name in config.chroots}
    # other locks are of no one artifact
    kinds = {"overlay", "enter", *(task.partition(":")[0] for task in artifacts if ":" in task)}
    for path in _entries(layout.locks):
        if path.name not in names and path.name.partition(".")[0] in kinds:
            yield Leftover(path, "the lock of a task that does not exist")


def _unfinished(site: Site, known: Known) -> Iterator[Leftover]:
    """What killed runs left, and what fsck has put aside."""
    layout = site.layout
    pinned = {
        Path(pin.path).name
        for pin in (known.lock.seeds.values() if known.lock else ())
        if not layout.seed(pin.sha512).is_dir()
    }
    for path in _entries(layout.downloads):
        if path.name.removeprefix(".").removesuffix(".partial") not in pinned:
            yield Leftover(path, "half a download")
    for path in _entries(layout.work):
        yield Leftover(path, "left by a run that was killed")
    for pattern in ("inside/builds/*/.*.tmp", "binhost/*/*/.*.tmp", ".*.tmp", "overlays/.*.tmp"):
        for path in sorted(layout.state.glob(pattern)):
            if path.parts[-3] != "builds" or path.parent.name in site.config.chroots:
                yield Leftover(path, "left by a run that was killed")
    for pattern in ("*.damaged", "*.damaged.*", "overlays/*.damaged", "overlays/*.damaged.*"):
        for path in sorted(layout.state.glob(pattern)):
            yield Leftover(path, "damaged, put aside by `doit fsck --repair`")
    if _entries(layout.trash):
        yield Leftover(layout.trash, "was being deleted")


def _entries(folder: Path) -> list[Path]:
    """What is in a folder of ours; a link is none."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _any_below(wanted: frozenset[Path], folder: Path) -> bool:
    return any(path.is_relative_to(folder) for path in wanted)


def _list(layout: Layout, each: Leftover, place: Path) -> int:
    """Print one leftover; returns its size in bytes."""
    size = disk_size(place)
    say(f"  {text.size(size):>9}  {each.path.relative_to(layout.state)}: {each.why}")
    return size


def disk_size(path: Path) -> int:
    """Bytes that a file or tree takes on the disk; what has several names counts once."""
    seen: set[int] = set()
    total = 0
    for place, folders, names in os.walk(path):
        for name in (*folders, *names):
            with contextlib.suppress(OSError):
                found = Path(place, name).lstat()
                if found.st_ino not in seen:
                    seen.add(found.st_ino)
                    total += found.st_blocks * 512
    with contextlib.suppress(OSError):
        total += path.lstat().st_blocks * 512
    return total
