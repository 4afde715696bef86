"""Manual changes in a chroot: kept as one more layer above it, with a mark.

`state/touched/NAME/layer.json` is the mark: the layer with the changes, and the layers below it. It
exists as long as the chroot differs from what config.toml describes.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.system.command import run
from tasks.system.files import private_folder, remove_tree, sync_folder, write_atomic

# Programs write here wherever they run: temporary files, caches and logs (FHS), and the news items
# that emerge has shown. These are not kept.
TRANSIENT = frozenset(("tmp", "var/tmp", "var/cache", "var/log", "var/lib/gentoo/news"))
# Mount points; and emerge makes var/lib/portage even for --pretend, if a stage lacks it.
_MOUNT_POINTS = frozenset(("proc", "sys", "dev", "run", "var/lib/portage"))
_OVERLAYFS = "trusted.overlay."


@dataclass(frozen=True)
class Mark:
    """A layer of manual changes and the layers below it; paths are relative to state/."""

    layer: str
    over: tuple[str, ...]


def read_mark(layout: Layout, name: str) -> Mark | None:
    """The mark of a chroot; None if it is unmodified."""
    path = layout.manual_changes(name) / "layer.json"
    try:
        raw = json.loads(path.read_bytes())
        return Mark(str(raw["layer"]), tuple(map(str, raw["over"])))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise BinmillError("manual-mark-damaged", path=path, chroot=name) from error


def discard(layout: Layout, name: str) -> None:
    """Delete the mark: the next run derives the chroot without the changes."""
    remove_tree(layout.manual_changes(name), layout.trash)


def copy_layer(upper: Path, layer: Path) -> None:
    """Fill an empty upper layer with a copy of a committed one."""
    upper.rmdir()
    # cp(1) keeps owners, links, devices and the attributes with which overlayfs marks deletions
    run("cp", "-a", "--reflink=auto", layer, upper)


def commit(
    layout: Layout, name: str, upper: Path, below: Sequence[str], mounts: Collection[str]
) -> bool:
    """Commit the upper layer of a session, then mark the chroot; returns False if nothing changed.

    `below` are the layers beneath it, `mounts` the mount points inside. Without changes the chroot
    is unmodified, and its mark is deleted.
    """
    if not prune(upper, [layout.state / part for part in below], mounts, layout.trash):
        discard(layout, name)
        return False
    target = layout.layer(name, secrets.token_hex(16))
    private_folder(target.parent.parent)
    target.parent.mkdir(exist_ok=True)
    run("sync", "--file-system", upper)  # the overlay was volatile: its files may not be on disk
    upper.rename(target)
    sync_folder(target.parent)
    mark = {"layer": str(target.relative_to(layout.state)), "over": list(below)}
    write_atomic(layout.manual_changes(name) / "layer.json", json.dumps(mark, indent=1) + "\n")
    return True


def prune(upper: Path, below: Sequence[Path], mounts: Collection[str], trash: Path) -> bool:
    """Delete what is no change from an upper layer; returns whether anything is left.

    No changes are transient files, compiled modules of sources below, mount points, and entries
    that a layer below has with the same owner, mode, size and time (they were only opened, or are
    the directory of something else). No link is followed: only directories are entered.
    """
    points = {*_MOUNT_POINTS, *TRANSIENT, *(place.strip("/") for place in mounts)}
    changed = False
    for folder in reversed(_directories(upper)):
        inner = str(folder.relative_to(upper))
        if inner in TRANSIENT:
            remove_tree(folder, trash)
            continue
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
        for entry in files:
            path = Path(entry.path)
            if (
                str(path.relative_to(upper)) in points
                or _is_compiled(path)
                or (entry.is_file(follow_symlinks=False) and _is_below(upper, path, below))
            ):
                path.unlink()
        empty = next(folder.iterdir(), None) is None
        if inner == ".":
            changed = not empty
        elif empty and (
            _is_below(upper, folder, below)
            or _is_mount_point(folder, inner, points)
            or folder.name == "__pycache__"
        ):
            folder.rmdir()
    return changed


def _directories(top: Path) -> list[Path]:
    """All directories of a tree, parents first; without recursion, however deep."""
    directories = [top]
    for folder in directories:
        with os.scandir(folder) as entries:
            directories += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    return directories


def _is_mount_point(folder: Path, inner: str, points: Collection[str]) -> bool:
    """Tell whether a directory is a mount point, or one above it that sandbox_init made."""
    status = folder.lstat()
    plain = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)
    return inner in points or (plain and any(point.startswith(f"{inner}/") for point in points))


def _is_compiled(path: Path) -> bool:
    """Tell whether a file is a compiled Python module whose source is in a layer below."""
    source = path.parent.parent / f"{path.name.split('.')[0]}.py"
    return path.parent.name == "__pycache__" and not os.path.lexists(source)


def _is_below(upper: Path, path: Path, below: Sequence[Path]) -> bool:
    """Tell whether the layers below have the same entry, as far as its attributes show."""
    for layer in below:
        lower = layer / path.relative_to(upper)
        try:
            old = lower.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return _attributes(path, path.lstat()) == _attributes(lower, old)
    return False


def _attributes(path: Path, status: os.stat_result) -> tuple[object, ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    values = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    opaque = values.pop(f"{_OVERLAYFS}opaque", None)  # the lower directory was deleted before
    xattrs = tuple(pair for pair in values.items() if not pair[0].startswith(_OVERLAYFS))
    content = (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else ()
    return status.st_mode, status.st_uid, status.st_gid, *content, xattrs, opaque
