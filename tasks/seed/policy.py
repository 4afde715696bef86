"""The rules for the entries of a stage, applied before one is written (docs/trust.md, Seeds)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.seed.tar_stream import ArchiveRefused, TarEntry

_ENTRIES_LIMIT = 900_000  # a desktop's stage4 has half of that
_BYTES_LIMIT = 128 << 30
_RATIO_LIMIT = 100  # of unpacked to packed bytes, once there are more than
_RATIO_FREE = 1 << 30
_DEPTH_LIMIT = 100
_PATH_LIMIT = 4095  # bytes: PATH_MAX without its NUL (path_resolution(7))
CAPABILITY = "security.capability"
_CAPABILITY = CAPABILITY.encode()
# Character devices by major and minor number, as in Documentation/admin-guide/devices.txt: null,
# zero, full, random, urandom, kmsg; tty, console, ptmx; fuse. Terminals and serial lines: by major.
_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (1, 11), (5, 0), (5, 1), (5, 2), (10, 229)}
_DEVICE_MAJORS = (4, 136)
# Where privileged programs may be: directories that only root can write to.
_PROGRAMS = re.compile(
    rb"(?:usr/(?:local/)?)?(?:s?bin|lib[^/]*|libexec)/.*|usr/[^/]+-[^/]+-[^/]+/.*|opt/.*"
)
_ODD = (b"", b".", b"/")
_SETUID, _SETGID = 0o4000, 0o2000
_OTHERS_WRITE = 0o022
# overlayfs would read them as its own marks in a lower layer (overlayfs.rst)
_FORBIDDEN_ATTRIBUTES = (b"trusted.", b"user.overlay.")


@dataclass(frozen=True)
class PrivilegedFile:
    """A program with setuid, setgid (both in `mode`) or a file capability."""

    mode: int
    capability: bytes = b""

    @property
    def privileges(self) -> list[str]:
        """Names of its privileges; empty for an ordinary file."""
        bits = (("setuid", self.mode & _SETUID), ("setgid", self.mode & _SETGID))
        return [name for name, has in (*bits, ("capabilities", self.capability)) if has]


class StagePolicy:
    """Checks the entries of one archive of `packed` bytes, in their order.

    `setuid` are paths that may be setuid, setgid or capable outside the directories for programs.
    `entries` and `size` (bytes) count what was admitted, `privileged` holds the programs of that
    kind by path, `folders` all directories, including the root ("") and those without an entry.
    """

    def __init__(self, packed: int, setuid: Iterable[str] = ()) -> None:
        self.entries = self.size = 0
        self.privileged: dict[bytes, PrivilegedFile] = {}
        self.folders: set[bytes] = {b""}
        self._packed = packed
        self._size_limit = min(_BYTES_LIMIT, max(_RATIO_FREE, _RATIO_LIMIT * packed))
        self._setuid = {path.strip("/").encode() for path in setuid}
        self._files: set[bytes] = set()
        self._others: set[bytes] = set()

    def admit(self, entry: TarEntry) -> bytes:
        """Return an entry's path below the root directory; raises ArchiveRefused."""
        self.entries += 1
        self.size += entry.size
        if self.entries > _ENTRIES_LIMIT:
            raise ArchiveRefused("stage-entry-limit", limit=_ENTRIES_LIMIT)
        if self.size > self._size_limit:
            raise ArchiveRefused("stage-size-limit", limit=self._size_limit, packed=self._packed)
        for name in entry.attributes:
            if name.startswith(_FORBIDDEN_ATTRIBUTES):
                raise ArchiveRefused("entry-attribute", path=entry.name, attribute=name)
        path = inner_path(entry.name)
        folder, _, _ = path.rpartition(b"/")
        if folder not in self.folders:
            self._add_folders(folder)
        if entry.kind == "directory":
            if path in self._files or path in self._others:
                raise ArchiveRefused("entry-two-kinds", path=path)
            self.folders.add(path)
            return path
        if path in self._files or path in self._others or path in self.folders:
            raise ArchiveRefused("entry-twice", path=path)
        if entry.kind in ("file", "hard link"):
            self._check_file(path, entry)
            self._files.add(path)
        else:
            _check_special(path, entry)
            self._others.add(path)
        return path

    def _add_folders(self, folder: bytes) -> None:
        """Note a directory and its parents; none may be a link, or tar would write through it."""
        parts = folder.split(b"/")
        for length in range(1, len(parts) + 1):
            step = b"/".join(parts[:length])
            if step in self._files or step in self._others:
                raise ArchiveRefused("entry-through-link", path=folder, parent=step)
            self.folders.add(step)

    def _check_file(self, path: bytes, entry: TarEntry) -> None:
        capability = entry.attributes.get(_CAPABILITY, b"")
        if entry.kind == "hard link":
            source = inner_path(entry.target)
            if source not in self._files:
                raise ArchiveRefused("entry-hard-link", path=path)
            if source not in self.privileged:
                return
            file = self.privileged[source]  # a hard link has the mode of its file
        elif entry.mode & (_SETUID | _SETGID) or capability:
            file = PrivilegedFile(entry.mode, capability)
        else:
            return
        if path not in self._setuid and not _PROGRAMS.fullmatch(path):
            self._check_top(path)
            raise ArchiveRefused("entry-privileged-place", path=path, privileges=file.privileges)
        if file.mode & _OTHERS_WRITE:
            raise ArchiveRefused("entry-privileged-writable", path=path, privileges=file.privileges)
        self.privileged[path] = file

    def _check_top(self, path: bytes) -> None:
        """Explain a misplaced program by a directory around the whole stage, where there is one."""
        top, _, rest = path.partition(b"/")
        tops = {folder.partition(b"/")[0] for folder in self.folders - {b""}}
        if tops == {top} and _PROGRAMS.fullmatch(rest):
            raise ArchiveRefused("stage-in-subdirectory", folder=top)


def inner_path(name: bytes) -> bytes:
    """Return a name as a path below the root directory (b"" for itself); raises ArchiveRefused."""
    path = name.removeprefix(b"./").removesuffix(b"/")
    if len(name) > _PATH_LIMIT or path.count(b"/") > _DEPTH_LIMIT:
        raise ArchiveRefused("path-too-long", path=name[:60])
    if path[:1] in _ODD or path[-1:] == b"/" or b"//" in path or b"/." in path:
        parts = path.split(b"/")
        if name in (b".", b"./"):
            return b""
        if b"" in parts or b"." in parts or b".." in parts:
            raise ArchiveRefused("path-leads-out", path=name)
    return path


def _check_special(path: bytes, entry: TarEntry) -> None:
    if entry.kind == "symbolic link" and not 0 < len(entry.target) <= _PATH_LIMIT:
        raise ArchiveRefused("entry-link-target", path=path)
    if entry.kind == "block device":
        raise ArchiveRefused("entry-block-device", path=path)
    if entry.kind == "character device":
        major, minor = entry.device
        if entry.device not in _DEVICES and major not in _DEVICE_MAJORS:
            raise ArchiveRefused("entry-device", path=path, major=major, minor=minor)
