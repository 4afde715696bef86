"""One commit as plain files, to be mounted read-only into chroots; made once per commit."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.errors import NotTrusted
from tasks.system.command import run, started
from tasks.system.files import remove_tree, sync_folder
from tasks.system.git import bare, explained

_ALLOWED_MODES = {"100644", "100755", "120000", "040000"}


def export(repository: Path, commit: str, target: Path, trash: Path) -> None:
    """Write a commit's files to `target`; does nothing when they are there already.

    Times are the commit's, owner is the caller. Raises NotTrusted for submodules and other
    entries that a tree of ebuilds has no use for.
    """
    if target.is_dir():
        return
    repo = bare(repository)
    _refuse_odd_entries(str(repo.git.ls_tree("-r", "-t", "-z", commit)), commit)
    scratch = target.with_name(f".{target.name}.tmp")
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    with explained(f"commit {commit[:12]} could not be exported", "check the disk's space"):
        archive = repo.git.execute(
            ["git", "-c", "tar.umask=0022", "archive", "--format=tar", commit], as_process=True
        )
        stream = archive.stdout
        with started(
            "tar", "-x", "--no-same-owner", "-C", scratch, stdin=stream, stderr=subprocess.DEVNULL
        ) as unpack:
            stream.close()  # else git would wait for us when tar is gone
            status = unpack.wait()
        archive.wait()
    if status != 0:
        raise NotTrusted(f"commit {commit[:12]} could not be written as files")
    scratch.chmod(0o755)
    run("sync", "-f", scratch)  # before its name says that it is whole
    scratch.rename(target)
    sync_folder(target.parent)


def _refuse_odd_entries(listing: str, commit: str) -> None:
    for entry in listing.split("\0"):
        if not entry:
            continue
        head, path = entry.split("\t", 1)
        if head.split(" ", 1)[0] not in _ALLOWED_MODES or path.split("/")[-1].lower() == ".git":
            raise NotTrusted(f"commit {commit[:12]} has an entry that no overlay needs: {path!r}")


def differences(
    repository: Path, commit: str, target: Path, seen: Callable[[int], None]
) -> Iterator[str]:
    """What of an export is not as the commit has it, a line each; `seen` is told bytes read.

    The commit's own objects are held against nothing here: that is `git fsck`'s.
    """
    repo = bare(repository)
    with explained(f"commit {commit[:12]} cannot be read", "run `doit fsck`", repository):
        listing = str(repo.git.ls_tree("-r", "-z", commit))
    wanted = {}
    for entry in filter(None, listing.split("\0")):
        head, path = entry.split("\t", 1)
        mode, _, blob = head.split(" ")
        wanted[path] = (mode, blob)
    for place, folders, names in os.walk(target):
        for name in (*names, *(f for f in folders if Path(place, f).is_symlink())):
            file = Path(place, name)
            path = str(file.relative_to(target))
            known = wanted.pop(path, None)
            if known is None:
                yield f"/{path} does not belong there"
            elif _as_blob(file, len(known[1]), seen) != known:
                yield f"/{path} has changed"
    for path in wanted:
        yield f"/{path} is missing"


def _as_blob(file: Path, digits: int, seen: Callable[[int], None]) -> tuple[str, str]:
    """The mode and id that git would give a file (gitformat-pack(5), git-hash-object(1))."""
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
    seen(len(data))
    kind = hashlib.sha1 if digits == 40 else hashlib.sha256
    return mode, kind(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
