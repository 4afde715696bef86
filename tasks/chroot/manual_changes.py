"""What was done in a chroot by hand: kept as one more layer above it, and said of it.

`state/touched/NAME/layer.json` is the mark: which layer holds the changes, and over which layers
they were made. It is there exactly as long as the chroot is not what config.toml makes of it.
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
from tasks.system.files import closed_folder, remove_tree, sync_folder, write_atomic

# What programs write wherever they run, and nobody misses: not kept. FHS: temporary files, caches,
# logs. emerge notes which news it has shown.
PASSING = frozenset(("tmp", "var/tmp", "var/cache", "var/log", "var/lib/gentoo/news"))
# Made by emerge even to look, where a stage lacks it.
_EMPTY = frozenset(("proc", "sys", "dev", "run", "var/lib/portage"))
_OWN_XATTRS = "trusted.overlay."


@dataclass(frozen=True)
class Mark:
    """A layer made by hand (relative to state/, as in records), and what it lies on."""

    layer: str
    over: tuple[str, ...]


def marked(layout: Layout, name: str) -> Mark | None:
    """The mark of a chroot; None where nobody has touched it."""
    path = layout.touched(name) / "layer.json"
    try:
        raw = json.loads(path.read_bytes())
        return Mark(str(raw["layer"]), tuple(map(str, raw["over"])))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise BinmillError(
            f"{path} is damaged", f"throw away what was done by hand: doit enter {name} --reset"
        ) from error


def forget(layout: Layout, name: str) -> None:
    """Take the mark away: the next run makes the chroot as it was without it."""
    remove_tree(layout.touched(name), layout.trash)


def begin(upper: Path, layer: Path) -> None:
    """Let an upper layer begin with what an earlier layer holds; a committed one stays as it is."""
    upper.rmdir()
    # cp(1) keeps owners, links, devices and the attributes by which overlayfs marks what is gone
    run("cp", "-a", "--reflink=auto", layer, upper)


def keep(
    layout: Layout, name: str, upper: Path, below: Sequence[str], mounts: Collection[str]
) -> bool:
    """Commit an upper layer that somebody has worked in, and mark the chroot; in that order.

    `below` are the layers beneath it, `mounts` what was mounted inside. Whether there was
    anything to be kept; if not, the chroot is as it was made, and the mark is taken away.
    """
    changed = prune(upper, [layout.state / part for part in below], mounts, layout.trash)
    if not changed:
        forget(layout, name)
        return False
    target = layout.layer(name, secrets.token_hex(16))
    closed_folder(target.parent.parent)
    target.parent.mkdir(exist_ok=True)
    run("sync", "--file-system", upper)  # the overlay was volatile: nothing is on the disk for sure
    upper.rename(target)
    sync_folder(target.parent)
    mark = {"layer": str(target.relative_to(layout.state)), "over": list(below)}
    write_atomic(layout.touched(name) / "layer.json", json.dumps(mark, indent=1) + "\n")
    return True


def prune(upper: Path, below: Sequence[Path], mounts: Collection[str], trash: Path) -> bool:
    """Delete what says nothing new from an upper layer; whether anything is left in it.

    Nothing new are: passing places, compiled modules of others' sources, mount points, and what is
    in the layers below with the same owner, mode, size and time (it was opened, or the folder of
    something else). No link is followed: only real folders are entered.
    """
    empty = {*_EMPTY, *PASSING, *(place.strip("/") for place in mounts)}
    kept = False
    for folder in reversed(_folders(upper)):
        inner = str(folder.relative_to(upper))
        if inner in PASSING:
            remove_tree(folder, trash)
            continue
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
        for entry in files:
            path = Path(entry.path)
            if (
                str(path.relative_to(upper)) in empty
                or _compiled(path)
                or (entry.is_file(follow_symlinks=False) and _same(upper, path, below))
            ):
                path.unlink()
        bare = next(folder.iterdir(), None) is None
        if inner == ".":
            kept = not bare
        elif bare and (
            _same(upper, folder, below)
            or _is_point(folder, inner, empty)
            or folder.name == "__pycache__"
        ):
            folder.rmdir()
    return kept


def _folders(top: Path) -> list[Path]:
    """All folders below, each before those in it; without recursion, however deep."""
    found = [top]
    for folder in found:
        with os.scandir(folder) as entries:
            found += [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    return found


def _is_point(folder: Path, inner: str, points: Collection[str]) -> bool:
    """Whether a folder is a mount point, or was made on the way to one, as sandbox_init does."""
    status = folder.lstat()
    plain = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)
    return inner in points or (plain and any(point.startswith(f"{inner}/") for point in points))


def _compiled(path: Path) -> bool:
    """Whether Python has compiled a module here whose source nobody has changed."""
    source = path.parent.parent / f"{path.name.split('.')[0]}.py"
    return path.parent.name == "__pycache__" and not os.path.lexists(source)


def _same(upper: Path, path: Path, below: Sequence[Path]) -> bool:
    """Whether the layers below have the very same there, as far as can be told without reading."""
    for layer in below:
        lower = layer / path.relative_to(upper)
        try:
            old = lower.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return _said(path, path.lstat()) == _said(lower, old)
    return False


def _said(path: Path, status: os.stat_result) -> tuple[object, ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    told = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    hidden = told.pop(f"{_OWN_XATTRS}opaque", None)  # the lower folder was deleted before
    own = tuple(pair for pair in told.items() if not pair[0].startswith(_OWN_XATTRS))
    content = (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else ()
    return status.st_mode, status.st_uid, status.st_gid, *content, own, hidden
