"""The one way to write, hash, copy and delete files.

A file is either the old one or the new one, never half of one: written beside its place, synced,
renamed. A tree is moved out of the way before it is deleted, never through a link and never across
a mount.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tasks.errors import BinmillError, Busy
from tasks.system.disk_space import name_file_if_full

_CHUNK = 1 << 20
# linux/fs.h; immutable, and append only
_GET_FLAGS, _SET_FLAGS, _PROTECTED = 0x80086601, 0x40086602, 0x10 | 0x20
_OCTAL = re.compile(rb"\\([0-7]{3})")  # how proc(5) writes space, tab, newline and backslash


def write_atomic(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Write a file in one step: readers see the old content or the new one."""
    write_parts(path, (data.encode() if isinstance(data, str) else data,), mode)


def write_parts(path: Path, parts: Iterable[bytes], mode: int = 0o644) -> None:
    """Write a file in one step, from parts that are never in memory together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with name_file_if_full(path), os.fdopen(os.open(scratch, flags, mode), "wb") as stream:
            stream.writelines(parts)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
        sync_folder(path.parent)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def private_folder(path: Path) -> None:
    """Create a folder that only its owner can enter: guests may leave setuid programs in it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable (fsync(2) on the directory)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def staged(
    target: Path, trash: Path, sync: Callable[[Path], object] | None = None
) -> Iterator[Path]:
    """Yield an empty folder that becomes `target` at the end, durable and in one step.

    What was at `target` goes to the trash. After an error the folder is deleted; what a killed
    run has left is deleted by the next one. `sync` makes its content durable (sync_tree).
    """
    scratch = target.with_name(f".{target.name}.tmp")
    private_folder(trash)  # now: a full disk would have no inode for it, and nothing be deleted
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        (sync or sync_tree)(scratch)
        remove_tree(target, trash)
        scratch.rename(target)
    except BaseException:
        remove_tree(scratch, trash)
        raise
    sync_folder(target.parent)


def sync_tree(folder: Path) -> None:
    """Make a small tree of files durable, names and contents.

    All files exist before the first is synced: a journal then writes them at once.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
        sync_folder(Path(place))


def digests(path: Path, *names: str) -> dict[str, str]:
    """Compute hex digests of a file, by hashlib name, in one pass."""
    with path.open("rb") as stream:
        return digests_of(stream, *names)


def digests_of(stream: BinaryIO, *names: str) -> dict[str, str]:
    """Compute hex digests of an open file, from its first byte to its last."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    stream.seek(0)
    while chunk := stream.read(_CHUNK):
        for each in hashes.values():
            each.update(chunk)
    return {name: each.hexdigest() for name, each in hashes.items()}


def sha512(path: Path) -> str:
    """The SHA-512 of a file, in hex."""
    return digests(path, "sha512")["sha512"]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    return digests(path, "sha256")["sha256"]


def copy_plain(source: Path, target: Path) -> None:
    """Copy a file that a chroot has written: never through a link, and with one name only.

    Raises BinmillError for anything else (a device, a link to the host, a hard link that could
    still be written from inside).
    """
    with _open_plain(source) as reader:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with name_file_if_full(target), scratch.open("xb") as writer:
                shutil.copyfileobj(reader, writer, _CHUNK)
                writer.flush()
                os.fsync(writer.fileno())
            scratch.chmod(0o644)
            scratch.replace(target)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise


def read_plain(path: Path, limit: int) -> bytes:
    """Read a file that a chroot has written, as `copy_plain` would, of at most `limit` bytes.

    Raises BinmillError for anything else, and for a larger file.
    """
    with _open_plain(path) as reader:
        content = reader.read(limit + 1)
    if len(content) > limit:
        raise BinmillError("file-too-large", path=path, limit=limit)
    return content


def _open_plain(path: Path) -> BinaryIO:
    """Open a regular file with one name, never through a link; else raises BinmillError."""
    # O_PATH first: to open a device, even only to look at it, may do something
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise BinmillError("file-not-plain", path=path)
        return os.fdopen(os.open(f"/proc/self/fd/{found}", os.O_RDONLY), "rb")
    finally:
        os.close(found)


@contextlib.contextmanager
def locked(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive flock(2) during the block; raises Busy, which names the holder.

    With `wait`, it waits for the end of the holder instead. The kernel drops the lock with its
    process, so a stale lock cannot exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_lock(path)
    try:
        try:
            how = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
            fcntl.flock(descriptor, how)
            while not _is_at(descriptor, path):  # deleted between the two calls: of no use
                os.close(descriptor)
                descriptor = _open_lock(path)
                fcntl.flock(descriptor, how)
        except BlockingIOError:
            holder = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip()
            raise Busy(
                "locked-by-another-run", what=what, holder=holder or "an unknown process"
            ) from None
        os.ftruncate(descriptor, 0)
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        with contextlib.suppress(OSError):  # a full disk must not keep gc from making space
            os.pwrite(descriptor, f"process {os.getpid()} since {now}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def all_locked(folder: Path) -> Iterator[None]:
    """Hold all locks of a folder, also those not created yet; raises Busy naming a holder.

    For what must not happen beside anything else, and is over at once: whoever creates a lock
    there waits for it. Needs neither space nor inodes, since these are what gc has to make.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        yield  # no other run can hold a lock in a folder that is not there, nor create it now
        return
    with contextlib.ExitStack() as locks:
        locks.enter_context(_creation_locked(folder, fcntl.LOCK_EX))
        for path in sorted(folder.iterdir()):
            locks.enter_context(locked(path, path.name.replace(".", ":", 1)))
        yield


def _open_lock(path: Path) -> int:
    """Open a lock file; creates it when nothing holds all locks of its folder."""
    flags = os.O_RDWR | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    with _creation_locked(path.parent, fcntl.LOCK_SH):
        return os.open(path, flags | os.O_CREAT, 0o644)


@contextlib.contextmanager
def _creation_locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def mounts_below(path: Path) -> list[str]:
    """Mount points at or beneath a directory, as this process sees them (proc(5), mountinfo)."""
    # the last name is not followed: of a link, the link itself is meant
    top = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - may be "/"
    points = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = os.fsdecode(_OCTAL.sub(lambda m: bytes([int(m[1], 8)]), line.split(b" ")[4]))
        if point == top or point.startswith(top.rstrip("/") + "/"):
            points.append(point)
    return points


def remove_tree(path: Path, trash: Path) -> None:
    """Delete a tree of ours: refuse mounts, move it to `trash`, walk without following links.

    `trash` must be on the same file system. A killed deletion is finished by `empty_trash`.
    """
    if move_to_trash(path, trash) is not None:
        empty_trash(trash)


def move_to_trash(path: Path, trash: Path) -> Path | None:
    """Move a file or tree of ours to the trash, by one rename; returns its place there.

    Raises BinmillError where something is mounted in it; None where there is nothing.
    """
    if not os.path.lexists(path):
        return None
    if mounts := mounts_below(path):
        raise BinmillError("mount-below", path=path, mount=mounts[0])
    private_folder(trash)
    place = trash / f"{path.name}.{secrets.token_hex(4)}"
    path.rename(place)
    return place


def empty_trash(trash: Path) -> None:
    """Delete everything in a trash directory, crossing no mount and following no link.

    Several processes may do so at once.
    """
    if not trash.is_dir():
        return
    mounts = [point for point in mounts_below(trash) if point != os.path.realpath(trash)]
    if mounts:  # a bind mount from the same file system has the same st_dev: only the table tells
        raise BinmillError("mount-below", path=trash, mount=mounts[0])
    descriptor = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        while names := os.listdir(descriptor):  # noqa: PTH208 - a descriptor, not a path
            for name in names:
                _delete(descriptor, name)
    finally:
        os.close(descriptor)


def _delete(trash: int, name: str) -> None:
    """Delete one entry of the trash. The folders in it become entries of the trash themselves,
    so a tree of any depth costs neither stack nor descriptors; a mount point does not move."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        if not stat.S_ISDIR(os.stat(name, dir_fd=trash, follow_symlinks=False).st_mode):
            _unlink(name, trash)
            return
        folder = os.open(name, flags, dir_fd=trash)
        try:
            if os.fstat(folder).st_dev != os.fstat(trash).st_dev:
                raise BinmillError("deletion-stopped", name=name)
            _make_deletable(folder)
            with os.scandir(folder) as entries:
                inner = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for each, is_folder in inner:
                with contextlib.suppress(FileNotFoundError):
                    if is_folder:
                        _move(each, folder, trash)
                    else:
                        _unlink(each, folder)
        finally:
            os.close(folder)
        try:
            os.rmdir(name, dir_fd=trash)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # something was added: the next round deletes it
                raise


def _unlink(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except PermissionError:
        _without_flags(name, folder)
        os.unlink(name, dir_fd=folder)


def _move(name: str, folder: int, trash: int) -> None:
    new = secrets.token_hex(16)
    try:
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=trash)
    except PermissionError:
        _without_flags(name, folder)
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=trash)


def _without_flags(name: str, folder: int) -> None:
    """Open a file or folder that cannot be deleted, and make it deletable."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        _make_deletable(descriptor)
    finally:
        os.close(descriptor)


def _make_deletable(descriptor: int) -> None:
    """Take off the flags by which root can keep files from root (chattr +ia)."""
    with contextlib.suppress(OSError):  # a file system without flags, or not our file
        flags = array.array("L", [0])
        fcntl.ioctl(descriptor, _GET_FLAGS, flags)
        if flags[0] & _PROTECTED:
            fcntl.ioctl(descriptor, _SET_FLAGS, array.array("L", [flags[0] & ~_PROTECTED]))
