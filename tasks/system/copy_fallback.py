"""The root of a chroot where overlayfs is not available: a copy of all layers, slower and larger.

The changes of a command are collected afterwards in the form of overlayfs (the kernel's
filesystems/overlayfs.rst): new files, and a character device 0:0 for each deleted one. So readers
of upper layers need no special case, and layers made in one way work in the other.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.system.command import run
from tasks.system.files import remove_tree

_MARK = "copied"  # in the workspace: the state of the copy before any change
OPAQUE = "trusted.overlay.opaque"
# Marks an empty file as a deleted one: on an overlay no device 0:0 can be made.
_WHITEOUT = "trusted.binmill.gone"
States = dict[str, tuple[int, int, int, int, int]]


def is_copied(space: Path) -> bool:
    """True if the root of a workspace is a copy."""
    return (space / _MARK).exists()


def copy_layers(layers: Sequence[Path], space: Path) -> None:
    """Fill `space/root` with the layers, topmost first, and with what is in `space/upper`."""
    root = space / "root"
    for layer in reversed(layers):
        _apply(layer, root, space / "gone")
    states = {inner: _look(root / inner) for inner, _ in _below(root)}
    _apply(space / "upper", root, space / "gone")
    with (space / _MARK).open("wb") as stream:
        marshal.dump(states, stream)


def collect_changes(space: Path) -> None:
    """Fill `space/upper` with the differences between `space/root` and its layers."""
    with (space / _MARK).open("rb") as stream:
        before: States = marshal.load(stream)  # noqa: S302 - written above, closed to guests
    root, upper = space / "root", space / "upper"
    remove_tree(upper, space / "gone")
    upper.mkdir()
    upper.chmod(0o755)
    there = set()
    for inner, is_folder in _below(root):
        there.add(inner)
        old, new = before.get(inner), _look(root / inner)
        if is_folder:
            if old is None or old[:3] != new[:3]:  # its times say only what is in it
                _folders(root, upper, inner)
        elif old != new:
            _folders(root, upper, str(Path(inner).parent))
            os.link(root / inner, upper / inner, follow_symlinks=False)
    for inner in sorted(before.keys() - there):
        parent = str(Path(inner).parent)
        if parent == "." or (parent in there and stat.S_ISDIR((root / parent).lstat().st_mode)):
            _folders(root, upper, parent)
            _white_out(upper / inner)


def _below(top: Path) -> Iterator[tuple[str, bool]]:
    """Yield the names below a folder, relative to it, and whether each is a folder.

    A folder comes before its content. Without recursion, at any depth; no link is followed.
    """
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                yield str(Path(entry.path).relative_to(top)), is_folder
                if is_folder:
                    waiting.append(Path(entry.path))


def _look(path: Path) -> tuple[int, int, int, int, int]:
    """Values that differ after any change of a file: every change sets a new ctime."""
    status = path.lstat()
    return status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_ctime_ns


def _folders(root: Path, upper: Path, inner: str) -> None:
    """Create a folder in the upper layer, and those above it, as the root has them."""
    for part in (*reversed(Path(inner).parents), Path(inner)):
        target = upper / part
        if not target.is_dir():
            target.mkdir()
            status = (root / part).lstat()
            os.chown(target, status.st_uid, status.st_gid)
            shutil.copystat(root / part, target)


def _apply(layer: Path, root: Path, trash: Path) -> None:
    """Copy one layer over the content of the root, as overlayfs would show the two."""
    whiteouts = []
    for inner, is_folder in _below(layer):
        source, target = layer / inner, root / inner
        if is_whiteout(source):
            whiteouts.append(target)
        if not os.path.lexists(target):
            continue
        merged = is_folder and target.is_dir() and not target.is_symlink()
        if not merged or is_opaque(source):
            remove_tree(target, trash)
    # each folder of the layer is a folder in the root by now, or missing: no link is followed
    run("cp", "-a", "--reflink=auto", "--remove-destination", f"{layer}/.", root)
    for target in whiteouts:
        target.unlink()


def _white_out(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
    except PermissionError:
        path.touch()
        os.setxattr(path, _WHITEOUT, b"y")


def is_opaque(folder: Path) -> bool:
    """True if a folder of a layer hides what the layers below have in its place."""
    return _has(folder, OPAQUE)


def is_whiteout(path: Path) -> bool:
    """True if an entry of a layer says that the entry below it is deleted."""
    status = path.lstat()
    device = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    return device or (stat.S_ISREG(status.st_mode) and not status.st_size and _has(path, _WHITEOUT))


def _has(path: Path, mark: str) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(path, mark, follow_symlinks=False) == b"y"
    return False
