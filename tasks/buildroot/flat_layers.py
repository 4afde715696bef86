"""Flat layers: several layers as one, so that a buildroot with a large closure has few of them.

A lookup in an overlay costs time for each of its layers (the kernel's filesystems/overlayfs.rst),
and mount(2) takes a limited number. A flat layer consists of hard links, so it takes no space for
content. It is kept under a name derived from those of its layers and shared by all buildroots that
have the same run of layers.

Before each use, its inodes are compared with those that it was made of. The content of its files is
that of the layers, which their store verifies. One that was changed is left alone, as a buildroot
may have it mounted: another takes its place.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tasks.buildroot.union import Union
from tasks.system.command import run
from tasks.system.copy_fallback import OPAQUE, is_opaque, is_whiteout
from tasks.system.files import locked, remove_tree, staged, write_atomic

_LOCK = "lock"
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
    for each, flat in every:
        whole = len(each) == 1 or not any(map(union.is_unmerged, _white_folders(flat)))
        shown += [flat] if whole else each
    return tuple(shown)


def _white_folders(flat: Path) -> list[str]:
    """The folders of a flat layer in which something is marked as deleted.

    overlayfs looks for such marks only in folders that it merges of several layers. In others, the
    names of what was deleted would be listed.
    """
    text = _deleted(flat).read_bytes()
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
    name = hashlib.sha256(names.encode()).hexdigest()[:32]
    numbers = itertools.count(1)
    target = cache / name
    while not _is_intact(target, layers):
        if target.is_dir():
            target = cache / f"{name}-{next(numbers)}"
        else:
            _make(target, layers, trash)
    return target


def _make(target: Path, layers: Sequence[Path], trash: Path) -> None:
    with locked(target.parent / _LOCK, "flat layers", wait=True):
        if target.is_dir():  # another thread was faster, and may have mounted it
            return
        # a hard link is no new content: what a journal keeps of the names is enough
        with staged(target, trash, sync=lambda _folder: None) as folder:
            for layer in layers:
                lay_over(layer, folder, lambda path: remove_tree(path, trash))
            marked = b"\0".join(map(os.fsencode, sorted(_folders_with_whiteouts(folder))))
            write_atomic(_deleted(target), marked)
            state = (_state(folder, layers, marked), *(layer.name for layer in layers))
            write_atomic(_state_file(target), "\n".join(state) + "\n", mode=0o600)


def _is_intact(flat: Path, layers: Sequence[Path]) -> bool:
    """Tell whether a flat layer, and what is stored with it, is as it was made of these layers."""
    try:
        marked = _deleted(flat).read_bytes()
        state = _state_file(flat).read_text("ascii").partition("\n")[0]
        return state == _state(flat, layers, marked)
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return False


def unneeded(cache: Path, is_needed: Callable[[str], bool]) -> Iterator[Path]:
    """The flat layers, and what is stored with them, of which a layer is no longer needed.

    `is_needed` tells that of the name of a layer. A flat layer without its state counts, too.
    """
    for path in sorted(cache.glob("[!.]*")):
        try:
            names = _state_file(path.with_suffix("")).read_text("ascii").splitlines()[1:]
        except (FileNotFoundError, UnicodeDecodeError):
            names = []
        if path.name != _LOCK and not (names and all(map(is_needed, names))):
            yield path


def _deleted(flat: Path) -> Path:
    return flat.with_name(f"{flat.name}.deleted")


def _state_file(flat: Path) -> Path:
    return flat.with_name(f"{flat.name}.state")


def _state(flat: Path, layers: Sequence[Path], deleted: bytes) -> str:
    """A digest of the inodes of a flat layer, and of the folders of its layers.

    The ctime of a file that it shares with its layer changes with each further name.
    """
    tops = [(status.st_ino, status.st_ctime_ns) for status in map(os.lstat, layers)]
    sha256 = hashlib.sha256(repr((tops, deleted)).encode())
    waiting = [("", str(flat))]
    while waiting:
        inner, place = waiting.pop()
        # its own times change when it is renamed to its place
        sha256.update(_inode(inner, os.lstat(place), changed=bool(inner)))
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((f"{inner}/{entry.name}", entry.path))
                else:
                    status = entry.stat(follow_symlinks=False)
                    sha256.update(_inode(entry.name, status, changed=status.st_nlink == 1))
    return sha256.hexdigest()


def _inode(name: str, status: os.stat_result, *, changed: bool) -> bytes:
    numbers = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_mtime_ns)
    more = 0 if stat.S_ISDIR(status.st_mode) else status.st_size  # some file systems count names
    times = status.st_ctime_ns if changed else 0
    return repr((name, *numbers, status.st_rdev, more, times)).encode()


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
                    _link(entry.path, below)


def _link(source: str, target: str) -> None:
    """Make a hard link, or a copy where the file has as many names as the file system allows."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        run("cp", "--archive", "--reflink=auto", "--no-target-directory", "--", source, target)


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
