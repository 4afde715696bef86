"""Flat layers: several layers as one, so that a buildroot with a large closure has few of them.

A lookup in an overlay costs time for each of its layers (the kernel's filesystems/overlayfs.rst),
and mount(2) takes a limited number. A flat layer consists of hard links, so it takes no space for
content. It is kept under a name derived from those of its layers and shared by all buildroots that
have the same run of layers.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.buildroot.union import Union
from tasks.system.copy_fallback import OPAQUE, is_opaque, is_whiteout
from tasks.system.files import locked, remove_tree, staged, write_atomic

MOST = 16  # layers of one buildroot, apart from those of its chroot
_OVERLAYFS = "trusted.overlay."


def mountable(
    layers: Sequence[Path],
    below: Sequence[Path],
    cache: Path,
    trash: Path,
    *,
    most: int = MOST,
) -> tuple[Path, ...]:
    """Layers that show the same as these, both in order and the topmost last.

    They are at most `most`, but for the runs that cannot be flat over `below`, which are as they
    were. Layers are told apart by their names. `cache` is a folder on the same file system.
    """
    every = [(run, _flat(run, cache, trash)) for run in runs(layers, most)]
    union = Union((*(flat for _, flat in reversed(every)), *reversed(below)))
    shown: list[Path] = []
    for run, flat in every:
        whole = len(run) == 1 or not any(map(union.is_unmerged, _white_folders(flat, cache)))
        shown += [flat] if whole else run
    return tuple(shown)


def _white_folders(flat: Path, cache: Path) -> list[str]:
    """The folders of a flat layer in which something is marked as deleted.

    overlayfs looks for such marks only in folders that it merges of several layers. In others, the
    names of what was deleted would be listed.
    """
    text = (cache / f"{flat.name}.deleted").read_bytes()
    return [os.fsdecode(name) for name in text.split(b"\0") if name]


def runs(layers: Sequence[Path], most: int) -> list[tuple[Path, ...]]:
    """Split layers into at most `most` runs; pure.

    A layer begins a run if enough bits at the end of its name's digest are zero. So buildroots that
    have nearly the same layers have most runs in common, wherever the others are inserted.
    """
    if not layers:
        return []
    digests = [hashlib.sha256(layer.name.encode()).digest() for layer in layers]
    numbers = [int.from_bytes(digest, "big") for digest in digests]
    for bits in range(256):
        mask = (1 << bits) - 1
        starts = [i for i, number in enumerate(numbers) if i == 0 or number & mask == 0]
        if len(starts) <= most:
            break
    ends = [*starts[1:], len(layers)]
    return [tuple(layers[a:b]) for a, b in zip(starts, ends, strict=True)]


def _flat(layers: Sequence[Path], cache: Path, trash: Path) -> Path:
    """The flat layer of a run; of one layer, that layer itself."""
    if len(layers) == 1:
        return layers[0]
    names = "\n".join(layer.name for layer in layers)
    target = cache / hashlib.sha256(names.encode()).hexdigest()[:32]
    if target.is_dir():
        return target
    with locked(cache / "lock", "flat layers", wait=True):
        if target.is_dir():  # another thread was faster, and may have mounted it
            return target
        # a hard link is no new content: what a journal keeps of the names is enough
        with staged(target, trash, sync=lambda _folder: None) as folder:
            for layer in layers:
                lay_over(layer, folder, lambda path: remove_tree(path, trash))
            marked = sorted(_folders_with_whiteouts(folder))
            write_atomic(cache / f"{target.name}.deleted", b"\0".join(map(os.fsencode, marked)))
    return target


def _folders_with_whiteouts(top: Path) -> set[str]:
    folders, marked = [""], set()
    for inner in folders:
        with os.scandir(top / inner) as entries:
            for entry in entries:
                path = f"{inner}/{entry.name}" if inner else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif is_whiteout(Path(entry.path)):
                    marked.add(inner)
    return marked


def lay_over(layer: Path, target: Path, delete: Callable[[Path], None]) -> None:
    """Add a layer on top of those in `target`; both remain layers, with whiteouts.

    What it replaces goes through `delete`. No link is followed, at any depth.
    """
    _copy_attributes(layer, target)
    waiting = [(str(layer), str(target), False)]
    while waiting:
        source, place, nothing_below = waiting.pop()
        with os.scandir(source) as entries:
            for entry in entries:
                below = f"{place}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    _lay_folder(Path(entry.path), Path(below), delete)
                    hides = nothing_below or is_opaque(Path(below))
                    waiting.append((entry.path, below, hides))
                    continue
                if os.path.lexists(below):
                    delete(Path(below))
                if not (nothing_below and is_whiteout(Path(entry.path))):
                    os.link(entry.path, below, follow_symlinks=False)


def _lay_folder(folder: Path, below: Path, delete: Callable[[Path], None]) -> None:
    """Add a folder without its content. One over a file or a whiteout hides what is deeper."""
    hides = is_opaque(folder)
    try:
        kind = below.lstat().st_mode
    except FileNotFoundError:
        below.mkdir()
    else:
        if hides or not stat.S_ISDIR(kind):
            delete(below)
            below.mkdir()
            hides = True
    if hides:
        os.setxattr(below, OPAQUE, b"y")
    _copy_attributes(folder, below)


def _copy_attributes(source: Path, target: Path) -> None:
    """Copy owner, mode and extended attributes, except those of overlayfs itself."""
    status = source.lstat()
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith(_OVERLAYFS):
            os.setxattr(target, name, os.getxattr(source, name))
