"""Freezing: a verified archive becomes a commit and a tag in the tree repository, no work tree.

The tagged commit has no parent and every date in it is the snapshot's own, so its id is a
function of the snapshot: each machine that freezes the same day gets the same commit and tag.
The branch `main` links the days for `git log`; its commits are this repository's own and name the
mirror of each day. The tags also record what later snapshots are compared with: the latest time,
the digest and the signer.
"""

from __future__ import annotations

import contextlib
import difflib
import gc
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot import incoming
from tasks.snapshot.archive import TreeFile, tree_files
from tasks.snapshot.incoming import WHO, Import, Importer
from tasks.system.files import locked
from tasks.system.git import bare, explained
from tasks.system.http import public

if TYPE_CHECKING:
    from git import Repo

    from tasks.snapshot.mirror import Tarball

_DAY_SECONDS = 86400
_NO_COMMIT = "0" * 40
_TIMESTAMP = "metadata/timestamp.x"
_TAG = re.compile(r"[0-9]{8}")
_FIELDS = "%(objecttype) %(*objecttype) %(*objectname)%0a%(contents)"  # git-for-each-ref(1)
_COMMIT = re.compile("tag commit ([0-9a-f]{40})")

# a further check of a commit in quarantine, by its repository and id; raises NotTrusted
Check = Callable[[Path, str], None]


@dataclass(frozen=True)
class Frozen:
    """A frozen day: its commit, the time inside (epoch), digest and signer of the archive."""

    tag: str
    commit: str
    timestamp: int
    sha512: str
    signer: str


@dataclass(frozen=True)
class Freeze:
    """Result of freezing: `changed` counts the files that differ from the day `since`, if any."""

    frozen: Frozen
    changed: int
    since: str | None


def freeze(
    repository: Path,
    tarball: Tarball,
    day: date,
    name: str,
    *,
    exact: bool = False,
    floor: int = 0,
    check: Check = lambda _place, _commit: None,
) -> Freeze:
    """Commit and tag an archive; freezing the same archive again changes nothing.

    The time inside must belong to `day`, exactly to that day where `exact`, and be later than
    `floor` (epoch seconds). Raises NotTrusted where it does not, where that day is already frozen
    with other content, or where `check` refuses the commit.
    """
    archive = tarball.path.name
    with (
        tree_files(tarball.stream, archive) as files,  # first: xz takes longest
        alone(repository) as repo,
        incoming.quarantine(repository) as quarantined,
        _no_garbage_collection(),
    ):
        last = newest(repository)
        commit, timestamp = _imported(quarantined, tarball, files, last, day=day, name=name)
        tag = tag_of(timestamp)
        if exact and tag != f"{day:%Y%m%d}":
            raise NotTrusted("snapshot-of-other-day", archive=archive, tag=tag)
        frozen = Frozen(tag, commit.commit, timestamp, tarball.sha512, tarball.signature.signer)
        existing = read(repository, tag)
        if existing is not None and existing != frozen:
            raise NotTrusted(
                "frozen-with-other-content",
                name=name,
                tag=tag,
                frozen=existing.commit,
                commit=frozen.commit,
            )
        if timestamp <= floor:
            raise NotTrusted("snapshot-too-old", archive=archive, time=_utc(timestamp))
        if existing is None:
            check(quarantined, frozen.commit)
            incoming.release(quarantined, repository)
            _reference(repo, frozen, name, public(tarball.url), last)
        return Freeze(frozen, commit.changed, last.tag if last else None)


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


@contextlib.contextmanager
def alone(repository: Path) -> Iterator[Repo]:
    """Lock a repository and delete what killed imports left in it; raises Busy."""

    def sweep() -> None:
        # git's own locks are files, and outlive it; no reference's name can end like this
        for pattern in (
            "objects/pack/tmp_*",
            "objects/pack/.tmp-*",
            "fast_import_*",
            "*.lock",
            "refs/**/*.lock",
        ):
            for leftover in repository.glob(pattern):
                leftover.unlink(missing_ok=True)

    repo = bare(repository)
    with locked(repository / "binmill.busy", f"the repository {repository.name}"):
        sweep()
        try:
            yield repo
        finally:
            sweep()


def tidy(repository: Path) -> None:
    """Combine small packs, so that a year of days stays a few packs (git-repack(1)).

    Only packs that are small beside the next larger one are rewritten, which takes a fraction of a
    second after a day. What fast-import packed in the archive's order, versions side by side, is
    as small as after a full repack.
    """
    with (
        alone(repository) as repo,
        explained("repository-not-packed", repository, name=repository.name),
    ):
        repo.git.repack("--geometric=2", "-d", "-q")


def tag_of(timestamp: int) -> str:
    """The tag of a snapshot made at `timestamp`: the day before, as it is made at 00:45 UTC."""
    return datetime.fromtimestamp(timestamp - _DAY_SECONDS, UTC).strftime("%Y%m%d")


def tags(repository: Path) -> list[str]:
    """List the frozen days, oldest first."""
    if not (repository / "HEAD").exists():
        return []
    with explained("tags-unreadable", repository, path=repository):
        return sorted(t.name for t in bare(repository).tags if _TAG.fullmatch(t.name))


def known(tag: str, days: list[str]) -> str:
    """Return `tag` if it is one of the frozen `days`; raises BinmillError that suggests one."""
    if tag in days:
        return tag
    newest_days = days[-5:]
    near = difflib.get_close_matches(tag, days, n=1, cutoff=0.6)
    if near:
        raise BinmillError("day-misspelt", day=tag, suggestion=near[0], newest=newest_days)
    raise BinmillError("day-not-frozen", day=tag, newest=newest_days)


def newest(repository: Path) -> Frozen | None:
    """Read the newest frozen day; None where no day is frozen."""
    days = tags(repository)
    return read(repository, days[-1]) if days else None


def read(repository: Path, tag: str) -> Frozen | None:
    """Read a frozen day from its tag; None where there is no such tag."""
    if not (repository / "HEAD").exists() or not _TAG.fullmatch(tag):
        return None
    with explained("tag-unreadable", repository, path=repository, tag=tag):
        printed = str(bare(repository).git.for_each_ref(f"refs/tags/{tag}", format=_FIELDS))
    if not printed:
        if tag in tags(repository):  # git skips a reference whose content is damaged
            raise BinmillError("tag-damaged", path=repository, tag=tag)
        return None
    target, _, message = printed.partition("\n")
    fields = dict(line.split(": ", 1) for line in message.splitlines() if ": " in line)
    commit = _COMMIT.fullmatch(target)
    with contextlib.suppress(KeyError, ValueError):
        if commit:
            time = int(fields["timestamp"])
            return Frozen(tag, commit[1], time, fields["sha512"], fields["signer"])
    raise BinmillError("tag-foreign", path=repository, tag=tag)


def _imported(
    quarantined: Path,
    tarball: Tarball,
    files: Iterator[TreeFile],
    last: Frozen | None,
    *,
    day: date,
    name: str,
) -> tuple[Import, int]:
    """Import the archive's files as a commit in quarantine; also returns the time inside."""
    archive = tarball.path.name
    timestamp: int | None = None
    with (
        explained("snapshot-not-stored", archive=archive),
        Importer(quarantined, archive, last.commit if last else None) as importer,
    ):
        for file in files:
            if file.path == _TIMESTAMP:
                timestamp = _checked_time(file.data, day, archive)
            importer.add(file)
        if timestamp is None:
            raise NotTrusted("snapshot-without-time", archive=archive, path=_TIMESTAMP)
        with ThreadPoolExecutor(1) as pool:  # git does not need this process to commit
            digest = pool.submit(tarball.digest)
            commit = importer.commit(f"{name} {tag_of(timestamp)}\n", timestamp)
    if digest.result() != tarball.sha512:
        raise NotTrusted("snapshot-modified", archive=archive)
    return commit, timestamp


def _checked_time(data: bytes, day: date, archive: str) -> int:
    """Parse the time inside, which must fit the requested day (as emerge-webrsync has it)."""
    first = data.split(maxsplit=1)[:1]
    if not first or not re.fullmatch(rb"[0-9]{9,11}", first[0]):
        raise NotTrusted("snapshot-time-unreadable", archive=archive, path=_TIMESTAMP)
    timestamp = int(first[0])
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if not start <= datetime.fromtimestamp(timestamp, UTC) <= start + timedelta(days=2):
        raise NotTrusted("snapshot-time-wrong", archive=archive, time=_utc(timestamp))
    return timestamp


def _utc(timestamp: int) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%d %H:%M} UTC"


def _reference(repo: Repo, frozen: Frozen, name: str, url: str, last: Frozen | None) -> None:
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
        changes = [f"create refs/tags/{frozen.tag} {_fed(repo, annotation, 'mktag')}"]
        if last is None or frozen.timestamp > last.timestamp:
            head = next((b.commit.hexsha for b in repo.branches if b.name == "main"), None)
            message = f"freeze {name} {frozen.tag}\n\nmirror: {url}\nsha512: {frozen.sha512}\n"
            new_head = _branch_commit(repo, frozen, head, message)
            changes.insert(0, f"update refs/heads/main {new_head} {head or _NO_COMMIT}")
        _fed(repo, "\n".join(["start", *changes, "prepare", "commit", ""]), "update-ref", "--stdin")


def _branch_commit(repo: Repo, frozen: Frozen, head: str | None, message: str) -> str:
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


def _fed(repo: Repo, text: str, *command: str) -> str:
    """Run a git command with `text` on its standard input; returns its output."""
    from git.exc import GitCommandError

    process = repo.git.execute(["git", *command], istream=-1, as_process=True)
    out, err = process.communicate(text.encode())
    if process.returncode != 0:
        raise GitCommandError(["git", *command], process.returncode, err, out)
    return str(out.decode().strip())
