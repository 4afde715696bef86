"""One commit as plain files, to be mounted read-only into chroots; made once per commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tasks.errors import NotTrusted
from tasks.system.command import started
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
    scratch.rename(target)
    sync_folder(target.parent)


def _refuse_odd_entries(listing: str, commit: str) -> None:
    for entry in listing.split("\0"):
        if not entry:
            continue
        head, path = entry.split("\t", 1)
        if head.split(" ", 1)[0] not in _ALLOWED_MODES or path.split("/")[-1].lower() == ".git":
            raise NotTrusted(f"commit {commit[:12]} has an entry that no overlay needs: {path!r}")
