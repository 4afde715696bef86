"""Export of a commit as plain files, once per commit, to be mounted read-only into chroots."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tasks.errors import BinmillError, NotTrusted
from tasks.system.command import run, started
from tasks.system.files import staged
from tasks.system.git import bare, explained

_ALLOWED_MODES = {"100644", "100755", "120000", "040000"}


def export_commit(repository: Path, commit: str, target: Path, trash: Path) -> None:
    """Write a commit's files to `target`; does nothing if it exists.

    Times are the commit's, the owner is the caller. Raises NotTrusted for submodules and other
    entries that no ebuild repository needs.
    """
    if target.is_dir():
        return
    repo = bare(repository)
    _refuse_odd_entries(str(repo.git.ls_tree("-r", "-t", "-z", commit)), commit)
    sync = partial(run, "sync", "-f")  # one call for the many files of a tree
    with staged(target, trash, sync) as scratch, explained("commit-not-exported", commit=commit):
        archive = repo.git.execute(
            ["git", "-c", "tar.umask=0022", "archive", "--format=tar", commit], as_process=True
        )
        stream = archive.stdout
        with started(
            "tar", "-x", "--no-same-owner", "-C", scratch, stdin=stream, stderr=subprocess.DEVNULL
        ) as unpack:
            stream.close()  # else git would wait for us after the end of tar
            status = unpack.wait()
        archive.wait()
        if status != 0:
            raise BinmillError("commit-not-exported", commit=commit, cause=f"tar: status {status}")
        scratch.chmod(0o755)


def _refuse_odd_entries(listing: str, commit: str) -> None:
    for entry in listing.split("\0"):
        if not entry:
            continue
        head, path = entry.split("\t", 1)
        if head.split(" ", 1)[0] not in _ALLOWED_MODES or path.split("/")[-1].lower() == ".git":
            raise NotTrusted("commit-entry-odd", commit=commit, path=path)


def differences(
    repository: Path, commit: str, target: Path, on_read: Callable[[int], None]
) -> Iterator[str]:
    """Compare an export with its commit; yields a line for each difference.

    `on_read` is called with the number of bytes of each file read. Damage of the commit's own
    objects is for `git fsck` to find.
    """
    repo = bare(repository)
    with explained("commit-unreadable", repository, commit=commit):
        listing = str(repo.git.ls_tree("-r", "-z", commit))
    expected = {}
    for entry in filter(None, listing.split("\0")):
        head, path = entry.split("\t", 1)
        mode, _, blob = head.split(" ")
        expected[path] = (mode, blob)
    for folder, folders, names in os.walk(target):
        for name in (*names, *(f for f in folders if Path(folder, f).is_symlink())):
            file = Path(folder, name)
            path = str(file.relative_to(target))
            tree_entry = expected.pop(path, None)
            if tree_entry is None:
                yield f"/{path} does not belong there"
            elif _as_blob(file, len(tree_entry[1]), on_read) != tree_entry:
                yield f"/{path} has changed"
    for path in expected:
        yield f"/{path} is missing"


def _as_blob(file: Path, digits: int, on_read: Callable[[int], None]) -> tuple[str, str]:
    """Compute the mode and id that git gives a file (gitformat-pack(5), git-hash-object(1))."""
    status = file.lstat()
    if stat.S_ISLNK(status.st_mode):
        mode, data = "120000", os.fsencode(file.readlink())
    elif stat.S_ISREG(status.st_mode):
        mode = "100755" if status.st_mode & 0o100 else "100644"
        try:
            data = file.read_bytes()
        except OSError as error:
            return mode, str(error.strerror)
    else:
        return "", ""
    on_read(len(data))
    kind = hashlib.sha1 if digits == 40 else hashlib.sha256
    return mode, kind(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
