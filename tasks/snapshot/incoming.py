"""A verified archive -> one commit, in a quarantine beside the repository's own objects.

Only what the day before does not have is stored: each file's blob id is computed here and looked
up in that day's listing; new blobs and one commit go to `git fast-import`. They wait in a
repository of their own that borrows the real one's objects (gitrepository-layout(5), alternates),
and are let in by renames when all checks have passed; before that, to delete it undoes all.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tasks.errors import NotTrusted
from tasks.snapshot.archive import Member
from tasks.system.command import widen
from tasks.system.files import remove_tree, sync_folder, write_atomic
from tasks.system.git import bare

WHO = "binmill <binmill@localhost>"
_BRANCH = b"refs/heads/incoming"
# A little compression and no deltas: the first day in four fifths of the time and a third larger;
# after thirty days still within a tenth of what a full repack makes of it (bench/snapshots.py).
_SETTINGS = ("-c", "core.compression=1", "-c", "fastimport.unpackLimit=0")
# git maps whole packs otherwise, a gigabyte at a time
_SMALL = ("-c", "core.packedGitWindowSize=1m", "-c", "core.packedGitLimit=32m")
# zlib takes 268 kB for each object, which glibc's malloc(3) would ask of the kernel and give back
# 150,000 times: a third of the whole time.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
_PIPE_BYTES = 1 << 20
_EARLY_LIMIT = 16 << 20  # of files that wait for the listing of the day before


@dataclass(frozen=True)
class Import:
    """A commit in quarantine: how many `files` it has, how many `changed` since the day before."""

    commit: str
    files: int
    changed: int


@contextlib.contextmanager
def quarantine(repository: Path) -> Iterator[Path]:
    """An empty repository that sees the objects of `repository`; gone when the block ends.

    Only for the holder of the repository's lock.
    """
    place, trash = repository / "incoming.git", repository / "incoming.trash"
    remove_tree(place, trash)
    bare(place)
    write_atomic(place / "objects/info/alternates", "../../objects\n")
    try:
        yield place
    finally:
        remove_tree(place, trash)


def let_in(place: Path, repository: Path) -> None:
    """Move what is in quarantine among the repository's own objects; each index last."""
    target = repository / "objects/pack"
    target.mkdir(parents=True, exist_ok=True)
    packs = (place / "objects/pack").glob("pack-*")
    for file in sorted(packs, key=lambda p: (p.suffix == ".idx", p.name)):
        file.rename(target / file.name)
    sync_folder(target)


class Importer:
    """Files -> one commit in a quarantined repository. A context: add() each file, then commit().

    `before` is a commit that most files are expected to be in, or None.
    """

    def __init__(self, place: Path, before: str | None) -> None:
        self._repo, self._before = bare(place), before
        self._known: set[bytes] = set()  # the lines of git ls-tree that no file had yet
        self._count_before = self._count = 0
        self._changed = bytearray()  # what fast-import is told of them in the end
        self._stored = 0
        self._paths: set[str] = set()
        self._early: list[Member] = []
        self._early_bytes = 0
        self._listing: Future[set[bytes]] | None = None

    def __enter__(self) -> Importer:
        if self._before:  # beside the first files, which wait for it
            self._reader = ThreadPoolExecutor(1)
            self._listing = self._reader.submit(
                lambda: set(self._lines("ls-tree", "-r", "--full-tree", str(self._before)))
            )
        self._process = self._repo.git.execute(
            [
                "git",
                *_SETTINGS,
                *_SMALL,
                "fast-import",
                "--quiet",
                "--done",
                "--depth=0",
                "--date-format=raw",
            ],
            as_process=True,
            istream=-1,
            env=_MEMORY,
        )
        stdin = self._process.stdin
        widen(stdin, _PIPE_BYTES)
        self._pipe = io.BufferedWriter(io.FileIO(os.dup(stdin.fileno()), "wb"), _PIPE_BYTES)
        stdin.close()
        return self

    def add(self, file: Member) -> None:
        """One file; its content is stored unless it was there the day before."""
        if self._listing is None:
            self._add(file)
            return
        self._early.append(file)
        self._early_bytes += len(file.data)
        if self._listing.done() or self._early_bytes > _EARLY_LIMIT:
            self._compare()

    def _compare(self) -> None:
        """Take up the listing, and then the files that came before it."""
        if self._listing is not None:
            self._known = self._listing.result()
            self._count_before, self._listing = len(self._known), None
        early, self._early = self._early, []
        for file in early:
            self._add(file)

    def _add(self, file: Member) -> None:
        path, data, executable = file
        blob = hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()
        mode = "100755" if executable else "100644"
        line = f"{mode} blob {blob}\t{path}".encode()
        self._count += 1
        if line in self._known:
            self._known.remove(line)
            return
        self._stored += 1
        self._pipe.write(b"blob\nmark :%d\ndata %d\n%b\n" % (self._stored, len(data), data))
        self._changed += f"M {mode} :{self._stored} {_quoted(path)}\n".encode()
        if self._before:
            self._paths.add(path)

    def commit(self, message: str, timestamp: int) -> Import:
        """A commit without a parent, with every date at `timestamp`; raises NotTrusted when the
        files cannot all stand side by side: a path twice, or beneath a file."""
        self._compare()
        who, text = f"{WHO} {timestamp} +0000".encode(), message.encode()
        write = self._pipe.write
        mark = self._stored + 1
        write(
            b"commit %b\nmark :%d\nauthor %b\ncommitter %b\ndata %d\n%b\n"
            % (_BRANCH, mark, who, who, len(text), text)
        )
        if self._before:
            tree = str(self._repo.git.rev_parse(f"{self._before}^{{tree}}"))
            write(b'M 040000 %b ""\n' % tree.encode())
        for line in self._known:
            path = line.split(b"\t", 1)[1].decode("utf-8", "surrogateescape")
            if path not in self._paths:
                write(f"D {_quoted(path)}\n".encode("utf-8", "surrogateescape"))
        write(self._changed)
        write(b"\nget-mark :%d\ndone\n" % mark)
        self._pipe.close()
        commit = self._process.stdout.read().decode().strip()
        self._process.wait()
        return self._counted(commit)

    def _counted(self, commit: str) -> Import:
        if self._before:
            told = self._lines(
                "diff-tree", "-r", "--no-renames", "--name-status", self._before, commit
            )
            status = [letter for letter, _path in zip(told, told, strict=True)]
            changed, files = len(status), status.count(b"A") - status.count(b"D")
            files += self._count_before
        else:
            files = changed = sum(1 for _ in self._lines("ls-tree", "-r", "--name-only", commit))
        if files != self._count:
            raise NotTrusted("a path is in it twice, or beneath a file", "try another mirror")
        return Import(commit, files, changed)

    def _lines(self, command: str, *words: str) -> Iterator[bytes]:
        """What a git command prints with -z, piece by piece."""
        process = self._repo.git.execute(["git", *_SMALL, command, "-z", *words], as_process=True)
        rest = b""
        while some := process.stdout.read(1 << 20):
            *whole, rest = (rest + some).split(b"\0")
            yield from whole
        process.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._before:
                self._reader.shutdown()
            if isinstance(error, BrokenPipeError):
                self._process.wait()  # raises with what git said before it ended
        finally:
            process = self._process.proc
            if process is not None:
                process.kill()
                process.wait()
            for pipe in (self._pipe, self._process.stdout, self._process.stderr):
                with contextlib.suppress(OSError):
                    pipe.close()


def _quoted(path: str) -> str:
    """A path as fast-import reads it; control characters were refused before."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"') if '"' in path else path
    return f'"{escaped}"'
