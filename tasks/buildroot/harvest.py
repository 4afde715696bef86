"""The upper layer of a finished build -> the package's merge layer and its side effects.

A merge layer has what a package installed, its entry in the package database, and whatever else
its phases changed; not what Portage itself writes: caches, logs, files that are generated from all
packages. A change of a file that the package does not own (by a pkg_* phase) is a side effect: it
is lost or wrong where another layer changes the same file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.buildroot.union import Union
from tasks.errors import NotTrusted
from tasks.portage import gpkg, vdb
from tasks.system.copy_fallback import OPAQUE, is_opaque, is_whiteout
from tasks.system.files import remove_tree

# Of everything below these only what the package owns is kept.
_TRANSIENT = (
    *("dev", "proc", "run", "sys", "tmp"),
    *("var/cache", "var/lib/gentoo/news", "var/lib/portage", "var/log", "var/tmp"),
)
# Written by env-update(1), ldconfig(8) and emerge(1) from what all packages have.
_GENERATED = frozenset(
    (
        *("etc/csh.env", "etc/environment.d/10-gentoo-env.conf", "etc/profile.env"),
        *("etc/ld.so.cache", "etc/ld.so.cache~", "etc/ld.so.conf"),
        *("usr/share/info/dir", "usr/share/info/dir.old"),
    )
)
_OVERLAYFS = "trusted.overlay."
LONGEST = 512 << 20  # characters of all paths that a package owns, and of the directories above
# Bytes of one path: below any folder of the site, it must be shorter than PATH_MAX (4096).
LONGEST_PATH = 3000


@dataclass(frozen=True, order=True)
class SideEffect:
    """A change of a file that the package does not own; `path` is the one inside."""

    path: str
    change: Literal["added", "changed", "deleted"]


def harvest(
    upper: Path, below: Sequence[Path], cpv: str, mounts: Collection[str], trash: Path
) -> tuple[SideEffect, ...]:
    """Delete from an upper layer what is not part of the merge layer; returns its side effects.

    `below` are the layers under it, the topmost first, `mounts` the mount points inside. The result
    is sorted. Links are resolved, never followed. Raises NotTrusted for a malformed database.
    """
    with paths_of(cpv):
        return _Harvest(upper, below, cpv, mounts, trash).run()


@contextmanager
def paths_of(cpv: str) -> Iterator[None]:
    """Raise NotTrusted, which names the package, where a path is too long or leads in a circle."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise NotTrusted("layer-path-too-long", package=cpv) from error


class _Harvest:
    def __init__(
        self, upper: Path, below: Sequence[Path], cpv: str, mounts: Collection[str], trash: Path
    ) -> None:
        self._upper, self._trash = upper, trash
        self._below = Union(below)
        self._entry = f"{vdb.DATABASE}/{cpv}"
        self._mounts = {point.strip("/") for point in mounts}
        paths = _resolved(Union((upper, *below)), upper / self._entry)
        # what another package owns can be said in CONTENTS, but its entry is nobody else's
        own = {path for path in paths if not path.startswith(f"{vdb.DATABASE}/")}
        self._owned = _with_parents({*own, self._entry})
        self._replaced = self._owned_before(cpv)
        self._effects: list[SideEffect] = []

    def run(self) -> tuple[SideEffect, ...]:
        """Prune the upper layer, folders after their content."""
        for inner in reversed(self._directories()):
            folder = self._upper / inner
            with os.scandir(folder) as entries:
                files = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
            longest = max((len(os.fsencode(name)) for name in files), default=0)
            if len(os.fsencode(inner)) + 1 + longest > LONGEST_PATH:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            for name in files:
                self._file(f"{inner}/{name}" if inner else name)
            if inner:
                self._folder(inner)
        _strip(self._upper)
        return tuple(sorted(self._effects))

    def _directories(self) -> list[str]:
        """The directories of the upper layer that are to be looked at, parents first.

        What is transient and belongs to no package is deleted at once.
        """
        directories = [""]
        for inner in directories:
            with os.scandir(self._upper / inner) as entries:
                names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
            for name in sorted(names):
                path = f"{inner}/{name}" if inner else name
                if path not in self._owned and self._is_transient(path):
                    remove_tree(self._upper / path, self._trash)
                elif path != self._entry:
                    directories.append(path)
                else:
                    _strip_tree(self._upper / path)
        return directories

    def _file(self, inner: str) -> None:
        path = self._upper / inner
        if inner in self._owned and not is_whiteout(path):
            _strip(path)
        elif self._is_transient(inner) or self._is_generated(inner):
            path.unlink()
        elif is_whiteout(path):
            if self._below.find(inner) is None:
                path.unlink()  # nothing is there to be deleted
            elif inner not in self._replaced:
                self._note(inner, "deleted")
        elif self._is_unchanged(inner):
            path.unlink()
        else:
            _strip(path)
            self._note(inner, "changed" if self._below.find(inner) else "added")

    def _folder(self, inner: str) -> None:
        path = self._upper / inner
        if is_opaque(path):
            self._opaque(path, inner)
        if inner in self._owned:
            _strip(path)
            return
        empty = next(path.iterdir(), None) is None
        lower = self._below.find(inner)
        unchanged = lower is not None and not is_opaque(path) and _same(path, lower)
        if empty and (unchanged or self._leads_to_others(inner) or path.name == "__pycache__"):
            path.rmdir()
            return
        _strip(path)
        if not unchanged:
            self._note(inner, "added" if lower is None else "changed")

    def _opaque(self, path: Path, inner: str) -> None:
        """Keep the mark of a folder that hides something; in other buildroots it would hide more.

        Older kernels set it on every new folder. What it hides is deleted.
        """
        lower = self._below.find(inner)
        if lower is None or lower.is_symlink() or not lower.is_dir():
            os.removexattr(path, OPAQUE)
        elif any(each not in self._replaced for each in self._below.tree(inner)):
            self._note(inner, "deleted")

    def _note(self, inner: str, change: Literal["added", "changed", "deleted"]) -> None:
        self._effects.append(SideEffect(f"/{inner}", change))

    def _is_transient(self, inner: str) -> bool:
        return any(inner == place or inner.startswith(f"{place}/") for place in _TRANSIENT)

    def _is_generated(self, inner: str) -> bool:
        folder, _, name = inner.rpartition("/")
        return (
            inner in _GENERATED
            or inner in self._mounts
            or name.endswith(".portage_lockfile")
            or (folder.rpartition("/")[2] == "__pycache__" and name.endswith(".pyc"))
        )

    def _leads_to_others(self, inner: str) -> bool:
        """True for a directory in which there was nothing but mount points and generated files."""
        places = (*self._mounts, *_GENERATED, *_TRANSIENT)
        return any(place == inner or place.startswith(f"{inner}/") for place in places)

    def _is_unchanged(self, inner: str) -> bool:
        lower = self._below.find(inner)
        return lower is not None and _same(self._upper / inner, lower)

    def _owned_before(self, cpv: str) -> frozenset[str]:
        """The files of the versions that this one has replaced, which it may delete."""
        category = f"{vdb.DATABASE}/{cpv.partition('/')[0]}"
        folder = self._upper / category
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if is_whiteout(Path(entry.path))
                or (entry.is_dir(follow_symlinks=False) and is_opaque(Path(entry.path)))
            ]
        replaced: set[str] = set()
        for name in names:
            if not _is_version_of(cpv, name):
                continue
            inner = f"{category}/{name}"
            old = self._below.find(inner)
            if old is not None and old.is_dir() and not old.is_symlink():
                replaced |= {inner, *_resolved(self._below, old)}
        return _with_parents(replaced)


def _is_version_of(cpv: str, pf: str) -> bool:
    """Tell whether a name in the database is that of a version of a package."""
    try:
        return gpkg.parse(cpv.partition("/")[0], pf, "1").cp == gpkg.parse_cpv(cpv).cp
    except NotTrusted:
        return False


def _resolved(union: Union, entry: Path) -> set[str]:
    """The files of a database entry where they really are: /sbin may be a link to /usr/sbin."""
    return {union.resolve(path) for path in vdb.contents(entry)}


def _with_parents(paths: Collection[str]) -> frozenset[str]:
    """Paths and all directories that they are in; raises OSError if these fill the memory."""
    every = set(paths)
    length = 0
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in every:
            every.add(path)
            length += len(path)
            if length > LONGEST:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return frozenset(every)


def _same(upper: Path, lower: Path) -> bool:
    """True if an entry has the attributes of the one below; of a file, also size and time."""
    return _attributes(upper) == _attributes(lower)


def _attributes(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content: tuple[object, ...] = ()
    if stat.S_ISREG(status.st_mode):
        content = (status.st_size, status.st_mtime_ns)
    elif stat.S_ISLNK(status.st_mode):
        content = (os.readlink(path),)  # noqa: PTH115 - as it is written
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith(_OVERLAYFS)
    }
    return status.st_mode, status.st_uid, status.st_gid, content, xattrs


def _strip(path: Path) -> None:
    """Remove what overlayfs noted about the files below: other buildroots have others."""
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(_OVERLAYFS) and name != OPAQUE:
            os.removexattr(path, name, follow_symlinks=False)


def _strip_tree(top: Path) -> None:
    folders = [top]
    for folder in folders:
        _strip(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    _strip(Path(entry.path))
