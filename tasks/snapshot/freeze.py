"""A verified archive -> one commit and one tag in the tree repository, without a work tree.

The files are streamed into `git fast-import`; nothing is referenced until all of them passed.
The tagged commit has no parent and every date in it is the snapshot's own, so its id is a
function of the snapshot: each machine that freezes the same day gets the same commit and tag.
The branch `main` strings the days together for `git log`; its commits are this repository's own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot.archive import members
from tasks.system.files import locked
from tasks.system.git import bare, explained

if TYPE_CHECKING:
    from git import Repo

    from tasks.snapshot.mirror import Tarball

_WHO = "binmill <binmill@localhost>"
_DAY_SECONDS = 86400
_INCOMING = b"refs/incoming/snapshot"
_NOTHING = "0" * 40
_TIMESTAMP = "metadata/timestamp.x"
_TAG = re.compile(r"[0-9]{8}")


@dataclass(frozen=True)
class Frozen:
    """A frozen day: `timestamp` in epoch seconds, `files` in the tree, who signed what bytes."""

    tag: str
    commit: str
    timestamp: int
    sha512: str
    signer: str


def freeze(repository: Path, tarball: Tarball, day: date, name: str) -> Frozen:
    """Commit and tag the archive; the same archive again changes nothing.

    Raises NotTrusted when the time inside does not belong to `day`, or when that day is already
    frozen with other content.
    """
    with alone(repository) as repo:
        return _frozen(repo, repository, tarball, day, name)


@contextlib.contextmanager
def alone(repository: Path) -> Iterator[Repo]:
    """The repository to oneself, swept of what ended imports leave in it; raises Busy."""

    def sweep() -> None:
        for left in (*repository.glob("objects/pack/tmp_*"), *repository.glob("fast_import_*")):
            left.unlink(missing_ok=True)

    repo = bare(repository)
    with locked(repository / "binmill.busy", f"the repository {repository.name}"):
        sweep()
        try:
            yield repo
        finally:
            sweep()


def _frozen(repo: Repo, repository: Path, tarball: Tarball, day: date, name: str) -> Frozen:
    commit, timestamp = _import(repo, tarball, day, name)
    tag = tag_of(timestamp)
    frozen = Frozen(tag, commit, timestamp, tarball.sha512, tarball.signature.signer)
    held = read(repository, tag)
    if held is not None and held != frozen:
        raise NotTrusted(
            f"{name} {tag} is already frozen with other content "
            f"(commit {held.commit[:12]}, now {commit[:12]}); somebody lies",
            "compare the two archives and their signatures before you trust either",
        )
    if held is None:
        _reference(repo, frozen, name)
    return frozen


def tag_of(timestamp: int) -> str:
    """The day a snapshot stands for: made at 00:45 UTC of the day after, so one day earlier."""
    return datetime.fromtimestamp(timestamp - _DAY_SECONDS, UTC).strftime("%Y%m%d")


def newest(repository: Path) -> Frozen | None:
    """The frozen day with the highest timestamp, or None."""
    if not (repository / "HEAD").exists():
        return None
    days = sorted(t.name for t in bare(repository).tags if _TAG.fullmatch(t.name))
    return read(repository, days[-1]) if days else None


def read(repository: Path, tag: str) -> Frozen | None:
    """What a tag of ours says, or None where there is no such tag."""
    if not (repository / "HEAD").exists():
        return None
    repo = bare(repository)
    if tag not in [t.name for t in repo.tags]:
        return None
    reference = repo.tags[tag]
    message = reference.tag.message if reference.tag else ""
    said = dict(line.split(": ", 1) for line in message.splitlines() if ": " in line)
    try:
        return Frozen(
            tag, reference.commit.hexsha, int(said["timestamp"]), said["sha512"], said["signer"]
        )
    except (KeyError, ValueError):
        raise BinmillError(
            f"the tag {tag} in {repository} is not one that binmill made",
            f"find out who made it; git -C {repository} tag -d {tag} takes it away",
        ) from None


def _import(repo: Repo, tarball: Tarball, day: date, name: str) -> tuple[str, int]:
    with explained(f"{tarball.path.name} could not be stored in git", "check the disk's space"):
        process = repo.git.fast_import(
            "--quiet", "--done", "--date-format=raw", as_process=True, istream=-1
        )
        try:
            timestamp = _stream(process.stdin, tarball, day, name)
            process.stdin.close()
            commit = process.stdout.read().decode().strip()
        except BrokenPipeError:
            process.wait()  # raises with what git said before it ended
            raise
        except BaseException:
            process.proc.kill()
            process.proc.wait()
            raise
        finally:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()
    return commit, timestamp


def _stream(pipe: IO[bytes], tarball: Tarball, day: date, name: str) -> int:
    """Write blobs, then one parentless commit; returns the snapshot's timestamp."""
    listing: list[bytes] = []
    number = 0
    timestamp: int | None = None
    for number, member in enumerate(members(tarball.path), 1):
        pipe.write(b"blob\nmark :%d\ndata %d\n" % (number, len(member.data)))
        pipe.write(member.data)
        mode = 755 if member.executable else 644
        listing.append(b"M 100%d :%d %s\n" % (mode, number, _quoted(member.path)))
        if member.path == _TIMESTAMP:
            timestamp = _checked_time(member.data, day, tarball.path.name)
    if timestamp is None:
        raise NotTrusted(f"{tarball.path.name} has no {_TIMESTAMP}; it is not a snapshot")
    message = f"{name} {tag_of(timestamp)}\n".encode()
    pipe.write(
        b"commit %s\nmark :%d\nauthor %s %d +0000\ncommitter %s %d +0000\ndata %d\n%s"
        % (_INCOMING, number + 1, _WHO.encode(), timestamp, _WHO.encode(), timestamp,
           len(message), message)
    )  # fmt: skip
    pipe.write(b"deleteall\n")
    pipe.writelines(listing)
    # its id is all that is wanted; the reference is dropped before git has written it
    pipe.write(b"\nget-mark :%d\nreset %s\nfrom %s\n\ndone\n"
               % (number + 1, _INCOMING, _NOTHING.encode()))  # fmt: skip
    return timestamp


def _checked_time(data: bytes, day: date, what: str) -> int:
    """The time inside decides, and must fit the day that was asked for (as emerge-webrsync)."""
    first = data.split(maxsplit=1)[:1]
    if not first or not re.fullmatch(rb"[0-9]{9,11}", first[0]):
        raise NotTrusted(f"{what}: {_TIMESTAMP} has no time in it")
    timestamp = int(first[0])
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    inside = datetime.fromtimestamp(timestamp, UTC)
    if not start <= inside <= start + timedelta(days=2):
        raise NotTrusted(
            f"{what} is really from {inside:%Y-%m-%d %H:%M} UTC: an old snapshot under a new name",
            "try another mirror",
        )
    return timestamp


def _quoted(path: str) -> bytes:
    """A path as fast-import reads it; control characters were refused before."""
    return b'"' + path.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'


def _reference(repo: Repo, frozen: Frozen, name: str) -> None:
    """The branch and the tag, in one transaction; the tag last, since it says that all is done."""
    zone = f"{frozen.timestamp} +0000"
    annotation = (
        f"object {frozen.commit}\ntype commit\ntag {frozen.tag}\ntagger {_WHO} {zone}\n\n"
        f"{name} {frozen.tag}\n\n"
        f"timestamp: {frozen.timestamp}\nsha512: {frozen.sha512}\nsigner: {frozen.signer}\n"
    )
    with explained(f"{name} {frozen.tag} could not be tagged", "run the same command again"):
        tag = _fed(repo, annotation, "mktag")
        before = [b.commit.hexsha for b in repo.branches if b.name == "main"]
        repo.git.update_environment(
            **{f"GIT_{who}_{key}": value
               for who in ("AUTHOR", "COMMITTER")
               for key, value in (("NAME", "binmill"), ("EMAIL", "binmill@localhost"),
                                  ("DATE", zone))}
        )  # fmt: skip
        parents = [word for parent in (*before, frozen.commit) for word in ("-p", parent)]
        message = f"freeze {name} {frozen.tag}"
        head = repo.git.commit_tree(f"{frozen.commit}^{{tree}}", *parents, "-m", message)
        if before and frozen.commit in [p.hexsha for p in repo.commit(before[0]).parents]:
            head = before[0]  # a kill came between the two
        _fed(
            repo,
            f"start\nupdate refs/heads/main {head} {before[0] if before else _NOTHING}\n"
            f"create refs/tags/{frozen.tag} {tag}\nprepare\ncommit\n",
            "update-ref", "--stdin",
        )  # fmt: skip


def _fed(repo: Repo, text: str, *command: str) -> str:
    """Run a git command with `text` on its standard input; returns what it printed."""
    from git.exc import GitCommandError

    process = repo.git.execute(["git", *command], istream=-1, as_process=True)
    out, err = process.communicate(text.encode())
    if process.returncode != 0:
        raise GitCommandError(["git", *command], process.returncode, err, out)
    return str(out.decode().strip())
