"""Layers seen as one tree, without mounting them: as overlayfs would show it, no link followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.errors import NotTrusted
from tasks.system.copy_fallback import is_opaque, is_whiteout

_MOST_LINKS = 40  # that a path goes through, as in path_resolution(7)
# Of all paths that a union resolves: characters of the directories on their ways, so much more for
# each time that one is passed, and for the search in all layers.
MOST_WORK = 512 << 20
_PASS, _SEARCH = 64, 1024


class Union:
    """The tree that layers show together, the topmost first. Paths are relative to its root."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._folders: dict[str, tuple[Path, ...]] = {"": tuple(layers)}
        self._resolved: dict[str, str] = {}
        self._steps: dict[str, str] = {}
        self._work = 0

    def find(self, path: str) -> Path | None:
        """The file of the topmost layer that has it; None where there is none, or it is deleted."""
        parent, _, name = path.rpartition("/")
        for folder in self._merged(parent):
            candidate = folder / name
            if os.path.lexists(candidate):
                return None if is_whiteout(candidate) else candidate
        return None

    def tree(self, path: str) -> Iterator[str]:
        """Yield the paths of all that is in a folder, at any depth."""
        waiting = [path]
        while waiting:
            folder = waiting.pop()
            names = {name for place in self._merged(folder) for name in os.listdir(place)}  # noqa: PTH208
            for name in sorted(names):
                inner = f"{folder}/{name}"
                if (place := self.find(inner)) is not None:
                    yield inner
                    if place.is_dir() and not place.is_symlink():
                        waiting.append(inner)

    def is_unmerged(self, path: str) -> bool:
        """True for a folder that a single layer shows."""
        return len(self._merged(path)) < 2

    def resolve(self, path: str) -> str:
        """The same path without links in its directories; its last part is not followed.

        Raises NotTrusted where links lead in a circle, OSError if all that were resolved take too
        much time and memory: links may have thousands of links in their targets.
        """
        folder, _, name = path.strip("/").rpartition("/")
        folder = self._directory(folder, _MOST_LINKS)
        return f"{folder}/{name}" if folder else name

    def _merged(self, path: str) -> tuple[Path, ...]:
        """The folders of the layers that overlayfs merges at a path."""
        waiting = []
        while path not in self._folders:  # no recursion: a path may have thousands of parts
            waiting.append(path)
            path = path.rpartition("/")[0]
        folders = self._folders[path]
        for inner in reversed(waiting):
            folders = self._folders[inner] = _folders_named(folders, inner.rpartition("/")[2])
        return folders

    def _directory(self, path: str, links: int) -> str:
        if path not in self._resolved:
            here = ""
            for part in path.split("/"):
                if part in ("", "."):
                    continue
                if part == "..":
                    here = here.rpartition("/")[0]
                    continue
                here = self._step(here, part, links)
            self._resolved[path] = here
        return self._resolved[path]

    def _step(self, here: str, part: str, links: int) -> str:
        """The directory that a name in another one leads to."""
        inner = f"{here}/{part}" if here else part
        step = self._steps.get(inner)
        self._work += len(inner) + _PASS + (_SEARCH if step is None else 0)
        if self._work > MOST_WORK:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if step is None:
            step = self._steps[inner] = self._led(here, inner, links)
        return step

    def _led(self, here: str, inner: str, links: int) -> str:
        place = self.find(inner)
        if place is None or not place.is_symlink():
            return inner
        if not links:
            raise NotTrusted("layer-links-in-a-circle", path=f"/{inner}")
        target = os.readlink(place)  # noqa: PTH115 - as it is written
        return self._directory(target if target[:1] == "/" else f"{here}/{target}", links - 1)


def _folders_named(folders: Sequence[Path], name: str) -> tuple[Path, ...]:
    """The folders of that name that overlayfs merges, from those in which it may be."""
    merged = []
    for folder in folders:
        candidate = folder / name
        try:
            status = candidate.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(status.st_mode):
            break
        merged.append(candidate)
        if is_opaque(candidate):
            break
    return tuple(merged)
