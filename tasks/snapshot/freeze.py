"""A verified archive -> one commit and one tag in the tree repository, without a work tree.

The tagged commit has no parent and every date in it is the snapshot's own, so its id is a
function of the snapshot: each machine that freezes the same day gets the same commit and tag.
The branch `main` strings the days together for `git log`; its commits are this repository's own
and say which mirror a day came from. The tags are also what is remembered of a channel: the
highest time seen, the bytes, the signer.
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
from tasks.snapshot.archive import Member, members
from tasks.snapshot.incoming import WHO, Import, Importer
from tasks.system.files import locked
from tasks.system.git import bare, explained
from tasks.system.http import public

if TYPE_CHECKING:
    from git import Repo

    from tasks.snapshot.mirror import Tarball

_DAY_SECONDS = 86400
_NOTHING = "0" * 40
_TIMESTAMP = "metadata/timestamp.x"
_TAG = re.compile(r"[0-9]{8}")
_FIELDS = "%(objecttype) %(*objecttype) %(*objectname)%0a%(contents)"  # git-for-each-ref(1)
_COMMIT = re.compile("tag commit ([0-9a-f]{40})")

# what else a commit must pass, in quarantine: its repository and id
Check = Callable[[Path, str], None]


@dataclass(frozen=True)
class Frozen:
    """A frozen day: `timestamp` in epoch seconds, the commit, who signed what bytes."""

    tag: str
    commit: str
    timestamp: int
    sha512: str
    signer: str


@dataclass(frozen=True)
class Freeze:
    """What freezing did: `changed` counts the files that differ from the day `since`, if any."""

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
    """Commit and tag the archive; the same archive again changes nothing.

    The time inside must belong to `day`, exactly that day's where `exact`, and be later than
    `floor` (epoch seconds). Raises NotTrusted when it is not, when that day is already frozen
    with other content, or when `check` says so.
    """
    with (
        members(tarball.stream, tarball.path.name) as files,  # first: xz takes longest
        alone(repository) as repo,
        incoming.quarantine(repository) as place,
        _uncollected(),
    ):
        last = newest(repository)
        made, timestamp = _imported(place, tarball, files, last, day=day, name=name)
        tag = tag_of(timestamp)
        if exact and tag != f"{day:%Y%m%d}":
            raise NotTrusted(f"{tarball.path.name} is really that of {tag}", "try another mirror")
        frozen = Frozen(tag, made.commit, timestamp, tarball.sha512, tarball.signature.signer)
        held = read(repository, tag)
        if held is not None and held != frozen:
            raise NotTrusted(
                f"{name} {tag} is already frozen with other content "
                f"(commit {held.commit[:12]}, now {made.commit[:12]}); somebody lies",
                "compare the two archives and their signatures before you trust either",
            )
        if timestamp <= floor:
            raise _too_old(tarball.path.name, timestamp)
        if held is None:
            check(place, made.commit)
            incoming.let_in(place, repository)
            _reference(repo, frozen, name, public(tarball.url), last)
        return Freeze(frozen, made.changed, last.tag if last else None)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No look for cycles: there are none among 150,000 files, and each look goes through all."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextlib.contextmanager
def alone(repository: Path) -> Iterator[Repo]:
    """The repository to oneself, swept of what ended imports leave in it; raises Busy."""

    def sweep() -> None:
        # git's own locks are files, and outlive it; no reference's name can end so
        for pattern in (
            "objects/pack/tmp_*",
            "objects/pack/.tmp-*",
            "fast_import_*",
            "*.lock",
            "refs/**/*.lock",
        ):
            for left in repository.glob(pattern):
                left.unlink(missing_ok=True)

    repo = bare(repository)
    with locked(repository / "binmill.busy", f"the repository {repository.name}"):
        sweep()
        try:
            yield repo
        finally:
            sweep()


def tidy(repository: Path) -> None:
    """Put small packs together, so that a year of days stays a few packs (git-repack(1)).

    Only packs that are small beside the next larger one are written anew: a fraction of a second
    after a day. What fast-import packed in the archive's order, versions side by side, is as
    small as a full repack would make it.
    """
    with (
        alone(repository) as repo,
        explained(
            f"{repository.name} could not be packed", "nothing is lost; check the disk", repository
        ),
    ):
        repo.git.repack("--geometric=2", "-d", "-q")


def tag_of(timestamp: int) -> str:
    """The day a snapshot stands for: made at 00:45 UTC of the day after, so one day earlier."""
    return datetime.fromtimestamp(timestamp - _DAY_SECONDS, UTC).strftime("%Y%m%d")


def tags(repository: Path) -> list[str]:
    """The frozen days, oldest first."""
    if not (repository / "HEAD").exists():
        return []
    with explained(f"the tags of {repository} cannot be read", "check who may read it", repository):
        return sorted(t.name for t in bare(repository).tags if _TAG.fullmatch(t.name))


def known(tag: str, days: list[str]) -> str:
    """The tag, if it is one of the frozen `days`; raises BinmillError that suggests one."""
    if tag in days:
        return tag
    near = difflib.get_close_matches(tag, days, n=1, cutoff=0.6)
    raise BinmillError(
        f"there is no frozen day {tag!r}{f'; did you mean {near[0]}?' if near else ''}",
        f"frozen are {len(days)}, the newest of them: {', '.join(days[-5:])}",
    )


def newest(repository: Path) -> Frozen | None:
    """The newest frozen day, or None."""
    days = tags(repository)
    return read(repository, days[-1]) if days else None


def read(repository: Path, tag: str) -> Frozen | None:
    """What a tag of ours says, or None where there is no such tag."""
    if not (repository / "HEAD").exists() or not _TAG.fullmatch(tag):
        return None
    hint = f"find out who made it; git -C {repository} tag -d {tag} takes it away"
    with explained(f"the tag {tag} in {repository} cannot be read", hint, repository):
        found = str(bare(repository).git.for_each_ref(f"refs/tags/{tag}", format=_FIELDS))
    if not found:
        if tag in tags(repository):  # git passes over a reference with rubbish in it
            raise BinmillError(f"the tag {tag} in {repository} is damaged", hint)
        return None
    commit, _, message = found.partition("\n")
    said = dict(line.split(": ", 1) for line in message.splitlines() if ": " in line)
    pointed = _COMMIT.fullmatch(commit)
    with contextlib.suppress(KeyError, ValueError):
        if pointed:
            time = int(said["timestamp"])
            return Frozen(tag, pointed[1], time, said["sha512"], said["signer"])
    raise BinmillError(f"the tag {tag} in {repository} is not one that binmill made", hint)


def _imported(
    place: Path,
    tarball: Tarball,
    files: Iterator[Member],
    last: Frozen | None,
    *,
    day: date,
    name: str,
) -> tuple[Import, int]:
    """The archive's files as a commit in quarantine, and the time that is in them."""
    what = tarball.path.name
    timestamp: int | None = None
    with (
        explained(f"{what} could not be stored in git", "check the disk's space"),
        Importer(place, last.commit if last else None) as importer,
    ):
        for member in files:
            if member.path == _TIMESTAMP:
                timestamp = _checked_time(member.data, day, what)
            importer.add(member)
        if timestamp is None:
            raise NotTrusted(f"{what} has no {_TIMESTAMP}; it is not a snapshot")
        with ThreadPoolExecutor(1) as beside:  # git does not need this process to commit
            used = beside.submit(tarball.digest)
            made = importer.commit(f"{name} {tag_of(timestamp)}\n", timestamp)
    if used.result() != tarball.sha512:
        raise NotTrusted(f"{what} was changed while it was read", "find out who writes there")
    return made, timestamp


def _checked_time(data: bytes, day: date, what: str) -> int:
    """The time inside decides, and must fit the day that was asked for (as emerge-webrsync)."""
    first = data.split(maxsplit=1)[:1]
    if not first or not re.fullmatch(rb"[0-9]{9,11}", first[0]):
        raise NotTrusted(f"{what}: {_TIMESTAMP} has no time in it")
    timestamp = int(first[0])
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if not start <= datetime.fromtimestamp(timestamp, UTC) <= start + timedelta(days=2):
        raise _too_old(what, timestamp)
    return timestamp


def _too_old(what: str, timestamp: int) -> NotTrusted:
    inside = datetime.fromtimestamp(timestamp, UTC)
    return NotTrusted(
        f"{what} is really from {inside:%Y-%m-%d %H:%M} UTC: an old snapshot under a new name",
        "try another mirror",
    )


def _reference(repo: Repo, frozen: Frozen, name: str, url: str, last: Frozen | None) -> None:
    """The branch and the tag, in one transaction.

    A day older than the newest gets its tag alone: the branch never goes back.
    """
    zone = f"{frozen.timestamp} +0000"
    annotation = (
        f"object {frozen.commit}\ntype commit\ntag {frozen.tag}\ntagger {WHO} {zone}\n\n"
        f"{name} {frozen.tag}\n\n"
        f"timestamp: {frozen.timestamp}\nsha512: {frozen.sha512}\nsigner: {frozen.signer}\n"
    )
    with explained(f"{name} {frozen.tag} could not be tagged", "run the same command again"):
        changes = [f"create refs/tags/{frozen.tag} {_fed(repo, annotation, 'mktag')}"]
        if last is None or frozen.timestamp > last.timestamp:
            before = next((b.commit.hexsha for b in repo.branches if b.name == "main"), None)
            message = f"freeze {name} {frozen.tag}\n\nmirror: {url}\nsha512: {frozen.sha512}\n"
            head = _strung(repo, frozen, before, message)
            changes.insert(0, f"update refs/heads/main {head} {before or _NOTHING}")
        _fed(repo, "\n".join(["start", *changes, "prepare", "commit", ""]), "update-ref", "--stdin")


def _strung(repo: Repo, frozen: Frozen, before: str | None, message: str) -> str:
    """The branch's next commit: the day's tree, with the branch and the day as parents."""
    if before and frozen.commit in [p.hexsha for p in repo.commit(before).parents]:
        return before  # a kill came between the two references
    zone = f"{frozen.timestamp} +0000"
    repo.git.update_environment(
        **{
            f"GIT_{who}_{key}": value
            for who in ("AUTHOR", "COMMITTER")
            for key, value in (("NAME", "binmill"), ("EMAIL", "binmill@localhost"), ("DATE", zone))
        }
    )
    parents = [word for each in (before, frozen.commit) if each for word in ("-p", each)]
    return str(repo.git.commit_tree(f"{frozen.commit}^{{tree}}", *parents, "-m", message))


def _fed(repo: Repo, text: str, *command: str) -> str:
    """Run a git command with `text` on its standard input; returns what it printed."""
    from git.exc import GitCommandError

    process = repo.git.execute(["git", *command], istream=-1, as_process=True)
    out, err = process.communicate(text.encode())
    if process.returncode != 0:
        raise GitCommandError(["git", *command], process.returncode, err, out)
    return str(out.decode().strip())
