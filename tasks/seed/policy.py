"""What may be in a seed, entry by entry, before it is written (docs/trust.md, Seeds)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks.seed.tar_stream import BadTar, Member, shown

_ENTRIES_LIMIT = 900_000  # a desktop's stage4 has half of that
_BYTES_LIMIT = 128 << 30
_RATIO_LIMIT = 100  # of unpacked to packed bytes, once there are more than
_RATIO_FREE = 1 << 30
_DEPTH_LIMIT = 100
_PATH_LIMIT = 4095  # bytes: PATH_MAX without its NUL (path_resolution(7))
CAPABILITY = "security.capability"
# Character devices by major and minor number, as in Documentation/admin-guide/devices.txt: null,
# zero, full, random, urandom, kmsg; tty, console, ptmx; fuse. Terminals and serial lines: by major.
_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (1, 11), (5, 0), (5, 1), (5, 2), (10, 229)}
_DEVICE_MAJORS = (4, 136)
# Where programs lie that may act as their owner: what is there is root's alone to write.
_PROGRAMS = re.compile(
    rb"(?:usr/(?:local/)?)?(?:s?bin|lib[^/]*|libexec)/.*|usr/[^/]+-[^/]+-[^/]+/.*|opt/.*"
)
_ODD = (b"", b".", b"/")
_ACTS_AS_OWNER = 0o6000
_OTHERS_WRITE = 0o022
# What overlayfs would take for its own notes in a lower layer (overlayfs.rst), and its like.
_FORBIDDEN_ATTRIBUTES = (b"trusted.", b"user.overlay.")


@dataclass
class Privileged:
    """A program with setuid, setgid (both in `mode`) or a file capability."""

    mode: int
    capability: bytes = b""


@dataclass
class Admission:
    """Decides on the members of one archive of `packed` bytes, in their order; raises BadTar.

    `expected` are paths that may be setuid, setgid or capable, beside those where programs lie.
    `privileged` is what was let in of that kind, `entries` and `size` (bytes) count all.
    `folders` are all that there will be, the root directory ("") and unnamed ones included.
    """

    packed: int
    expected: Iterable[str] = ()
    entries: int = 0
    size: int = 0
    privileged: dict[bytes, Privileged] = field(default_factory=dict)
    folders: set[bytes] = field(default_factory=lambda: {b""})

    def __post_init__(self) -> None:
        self._allowed = min(_BYTES_LIMIT, max(_RATIO_FREE, _RATIO_LIMIT * self.packed))
        self._expected = {path.strip("/").encode() for path in self.expected}
        self._files: set[bytes] = set()
        self._others: set[bytes] = set()

    def __call__(self, member: Member) -> bytes:
        """Let one more in, or raise BadTar; its path below the root directory."""
        self.entries += 1
        self.size += member.size
        if self.entries > _ENTRIES_LIMIT:
            raise BadTar(f"it has more than {_ENTRIES_LIMIT} entries")
        if self.size > self._allowed:
            raise BadTar(
                f"it unpacks to more than {self._allowed >> 20} MiB, too much for its own size"
            )
        for name in member.attributes:
            if name.startswith(_FORBIDDEN_ATTRIBUTES):
                raise BadTar(f"{shown(member.name)} has the attribute {shown(name)}")
        path = inner_path(member.name)
        folder, _, _ = path.rpartition(b"/")
        if folder not in self.folders:
            self._all_folders(folder)
        if member.kind == "directory":
            if path in self._files or path in self._others:
                raise BadTar(f"{shown(path)} is in it as two things")
            self.folders.add(path)
            return path
        if path in self._files or path in self._others or path in self.folders:
            raise BadTar(f"{shown(path)} is in it twice")
        if member.kind in ("file", "hard link"):
            self._file(path, member)
            self._files.add(path)
        else:
            _special(path, member)
            self._others.add(path)
        return path

    def _all_folders(self, folder: bytes) -> None:
        """All on the way are folders: nothing is written through a link."""
        parts = folder.split(b"/")
        for length in range(1, len(parts) + 1):
            step = b"/".join(parts[:length])
            if step in self._files or step in self._others:
                raise BadTar(f"{shown(folder)} leads through {shown(step)}, which is no directory")
            self.folders.add(step)

    def _file(self, path: bytes, member: Member) -> None:
        mode, capability = member.mode, member.attributes.get(CAPABILITY.encode(), b"")
        if member.kind == "hard link":
            source = inner_path(member.target)
            if source not in self._files:
                raise BadTar(f"{shown(path)} is a hard link to what is no file in it before")
            if source not in self.privileged:
                return  # its mode is that of the file
            mode, capability = self.privileged[source].mode, self.privileged[source].capability
        if not mode & _ACTS_AS_OWNER and not capability:
            return
        how = "has capabilities" if capability else "is setuid or setgid"
        if path not in self._expected and not _PROGRAMS.fullmatch(path):
            top, _, rest = path.partition(b"/")
            if len(
                {each.partition(b"/")[0] for each in self.folders - {b""}}
            ) == 1 and _PROGRAMS.fullmatch(rest):
                raise BadTar(f"all of it lies in a directory of its own ({shown(top)[1:-1]}/)")
            raise BadTar(f"/{shown(path)[1:-1]} {how}, and no program belongs there")
        if mode & _OTHERS_WRITE:
            raise BadTar(f"/{shown(path)[1:-1]} {how}, and others may write to it")
        self.privileged[path] = Privileged(mode, capability)


def inner_path(name: bytes) -> bytes:
    """A path below the root directory, whose own is empty; raises BadTar."""
    path = name.removeprefix(b"./").removesuffix(b"/")
    if len(name) > _PATH_LIMIT or path.count(b"/") > _DEPTH_LIMIT:
        raise BadTar(f"the path {shown(name[:60])}... is longer than one can be")
    if path[:1] in _ODD or path[-1:] == b"/" or b"//" in path or b"/." in path:
        parts = path.split(b"/")
        if name in (b".", b"./"):
            return b""
        if b"" in parts or b"." in parts or b".." in parts:
            raise BadTar(f"the path {shown(name)} is absolute, or leads out of where it belongs")
    return path


def _special(path: bytes, member: Member) -> None:
    if member.kind == "symbolic link" and not 0 < len(member.target) <= _PATH_LIMIT:
        raise BadTar(f"{shown(path)} is a link to nowhere")
    if member.kind == "block device":
        raise BadTar(f"{shown(path)} is a block device")
    if member.kind == "character device":
        major, minor = member.device
        if member.device not in _DEVICES and major not in _DEVICE_MAJORS:
            raise BadTar(f"{shown(path)} is a device that no stage needs ({major}:{minor})")
