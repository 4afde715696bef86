"""Freezing: a verified archive becomes a commit and a tag in the tree repository, no work tree.

The tagged commit has no parent and every date in it is the snapshot's own, so its id is a
function of the snapshot: each machine that freezes the same day gets the same commit and tag.
The branch `main` links the days for `git log`; its commits are this repository's own and name the
mirror of each day. frozen_days.py reads the tags.
"""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import NotTrusted
from tasks.snapshot import fast_import, frozen_days
from tasks.snapshot.archive import TreeFile, tree_files
from tasks.snapshot.fast_import import WHO, ImportedCommit, Importer
from tasks.snapshot.frozen_days import FrozenDay
from tasks.snapshot.repository import exclusive
from tasks.system.git import explained
from tasks.text import without_password

if TYPE_CHECKING:
    from git import Repo

    from tasks.snapshot.download import VerifiedArchive

_NO_COMMIT = "0" * 40
_TIMESTAMP = "metadata/timestamp.x"

# a further check of a commit in quarantine, by its repository and id; raises NotTrusted
Check = Callable[[Path, str], None]


@dataclass(frozen=True)
class FreezeResult:
    """Result of freezing: `changed` counts the files that differ from the day `since`, if any."""

    frozen: FrozenDay
    changed: int
    since: str | None


def freeze_archive(
    repository: Path,
    archive: VerifiedArchive,
    day: date,
    name: str,
    *,
    exact: bool = False,
    floor: int = 0,
    check: Check = lambda _place, _commit: None,
) -> FreezeResult:
    """Commit and tag an archive; freezing the same archive again changes nothing.

    The time inside must belong to `day`, exactly to that day where `exact`, and be later than
    `floor` (epoch seconds). Raises NotTrusted where it does not, where that day is already frozen
    with other content, or where `check` refuses the commit.
    """
    filename = archive.path.name
    with (
        tree_files(archive.stream, filename) as files,  # first: xz takes longest
        exclusive(repository) as repo,
        fast_import.quarantine(repository) as quarantined,
        _no_garbage_collection(),
    ):
        last = frozen_days.newest(repository)
        commit, timestamp = _import(quarantined, archive, files, last, day=day, name=name)
        tag = frozen_days.tag_of(timestamp)
        if exact and tag != f"{day:%Y%m%d}":
            raise NotTrusted("snapshot-of-other-day", archive=filename, tag=tag)
        signer = archive.signature.signer
        frozen = FrozenDay(tag, commit.commit, timestamp, archive.sha512, signer)
        existing = frozen_days.read(repository, tag)
        if existing is not None and existing != frozen:
            raise NotTrusted(
                "frozen-with-other-content",
                name=name,
                tag=tag,
                frozen=existing.commit,
                commit=frozen.commit,
            )
        if timestamp <= floor:
            raise NotTrusted("snapshot-too-old", archive=filename, time=timestamp)
        if existing is None:
            check(quarantined, frozen.commit)
            fast_import.release(quarantined, repository)
            _reference(repo, frozen, name, without_password(archive.url), last)
        return FreezeResult(frozen, commit.changed, last.tag if last else None)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the search for cycles: 150,000 files have none, and each search visits them all."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _import(
    quarantined: Path,
    archive: VerifiedArchive,
    files: Iterator[TreeFile],
    last: FrozenDay | None,
    *,
    day: date,
    name: str,
) -> tuple[ImportedCommit, int]:
    """Import the archive's files as a commit in quarantine; also returns the time inside."""
    filename = archive.path.name
    timestamp: int | None = None
    with (
        explained("snapshot-not-stored", archive=filename),
        Importer(quarantined, filename, last.commit if last else None) as importer,
    ):
        for file in files:
            if file.path == _TIMESTAMP:
                timestamp = _checked_time(file.data, day, filename)
            importer.add(file)
        if timestamp is None:
            raise NotTrusted("snapshot-without-time", archive=filename, path=_TIMESTAMP)
        with ThreadPoolExecutor(1) as pool:  # git does not need this process to commit
            digest = pool.submit(archive.digest)
            commit = importer.commit(f"{name} {frozen_days.tag_of(timestamp)}\n", timestamp)
    if digest.result() != archive.sha512:
        raise NotTrusted("snapshot-modified", archive=filename)
    return commit, timestamp


def _checked_time(data: bytes, day: date, filename: str) -> int:
    """Parse the time inside, which must fit the requested day (as emerge-webrsync has it)."""
    first = data.split(maxsplit=1)[:1]
    if not first or not re.fullmatch(rb"[0-9]{9,11}", first[0]):
        raise NotTrusted("snapshot-time-unreadable", archive=filename, path=_TIMESTAMP)
    timestamp = int(first[0])
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if not start <= datetime.fromtimestamp(timestamp, UTC) <= start + timedelta(days=2):
        raise NotTrusted("snapshot-time-wrong", archive=filename, time=timestamp)
    return timestamp


def _reference(repo: Repo, frozen: FrozenDay, name: str, url: str, last: FrozenDay | None) -> None:
    """Update the branch and create the tag, in one transaction.

    A day older than the newest gets a tag only: the branch never moves back.
    """
    zone = f"{frozen.timestamp} +0000"
    annotation = (
        f"object {frozen.commit}\ntype commit\ntag {frozen.tag}\ntagger {WHO} {zone}\n\n"
        f"{name} {frozen.tag}\n\n"
        f"timestamp: {frozen.timestamp}\nsha512: {frozen.sha512}\nsigner: {frozen.signer}\n"
    )
    with explained("day-not-tagged", name=name, tag=frozen.tag):
        changes = [f"create refs/tags/{frozen.tag} {_feed(repo, annotation, 'mktag')}"]
        if last is None or frozen.timestamp > last.timestamp:
            head = next((b.commit.hexsha for b in repo.branches if b.name == "main"), None)
            message = f"freeze {name} {frozen.tag}\n\nmirror: {url}\nsha512: {frozen.sha512}\n"
            new_head = _branch_commit(repo, frozen, head, message)
            changes.insert(0, f"update refs/heads/main {new_head} {head or _NO_COMMIT}")
        _feed(
            repo, "\n".join(["start", *changes, "prepare", "commit", ""]), "update-ref", "--stdin"
        )


def _branch_commit(repo: Repo, frozen: FrozenDay, head: str | None, message: str) -> str:
    """Make the branch's next commit: the day's tree, with the branch and the day as parents."""
    if head and frozen.commit in [p.hexsha for p in repo.commit(head).parents]:
        return head  # a kill came between the two references
    zone = f"{frozen.timestamp} +0000"
    repo.git.update_environment(
        **{
            f"GIT_{who}_{key}": value
            for who in ("AUTHOR", "COMMITTER")
            for key, value in (("NAME", "binmill"), ("EMAIL", "binmill@localhost"), ("DATE", zone))
        }
    )
    parents = [word for each in (head, frozen.commit) if each for word in ("-p", each)]
    return str(repo.git.commit_tree(f"{frozen.commit}^{{tree}}", *parents, "-m", message))


def _feed(repo: Repo, text: str, *command: str) -> str:
    """Run a git command with `text` on its standard input; returns its output."""
    from git.exc import GitCommandError

    process = repo.git.execute(["git", *command], istream=-1, as_process=True)
    out, err = process.communicate(text.encode())
    if process.returncode != 0:
        raise GitCommandError(["git", *command], process.returncode, err, out)
    return str(out.decode().strip())
