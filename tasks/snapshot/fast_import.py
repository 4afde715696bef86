"""Import of a verified archive as one commit, in a quarantine beside the repository's objects.

Only files that differ from the day before are stored: each file's blob id is computed here and
looked up in that day's listing; new blobs and one commit go to `git fast-import`. The quarantine
is a repository of its own that borrows the real one's objects (gitrepository-layout(5),
alternates). When all checks have passed its packs are renamed into the real one; until then,
deleting it undoes everything.
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
from tasks.snapshot.archive import TreeFile
from tasks.system.command import widen
from tasks.system.files import remove_tree, sync_folder, write_atomic
from tasks.system.git import bare

WHO = "binmill <binmill@localhost>"
_BRANCH = b"refs/heads/incoming"
# A little compression and no deltas: the first day takes four fifths of the time and a third more
# space; after thirty days it is within a tenth of a full repack's size (bench/snapshots.py).
_SETTINGS = ("-c", "core.compression=1", "-c", "fastimport.unpackLimit=0")
_COMMAND = ("fast-import", "--quiet", "--done", "--depth=0", "--date-format=raw")
# otherwise git maps whole packs, a gigabyte at a time
_SMALL = ("-c", "core.packedGitWindowSize=1m", "-c", "core.packedGitLimit=32m")
# zlib takes 268 kB for each object. glibc's malloc(3) would request them from the kernel and return
# them 150,000 times, which takes a third of the whole time.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
_PIPE_BYTES = 1 << 20
_WAITING_LIMIT = 16 << 20  # bytes of files that wait for the listing of the day before


@dataclass(frozen=True)
class ImportedCommit:
    """A commit in quarantine: the number of its `files`, and of those that `changed` in it."""

    commit: str
    files: int
    changed: int


@contextlib.contextmanager
def quarantine(repository: Path) -> Iterator[Path]:
    """An empty repository that borrows the objects of `repository`; deleted after the block.

    The caller holds the repository's lock.
    """
    folder, trash = repository / "incoming.git", repository / "incoming.trash"
    remove_tree(folder, trash)
    bare(folder)
    write_atomic(folder / "objects/info/alternates", "../../objects\n")
    try:
        yield folder
    finally:
        remove_tree(folder, trash)


def release(quarantined: Path, repository: Path) -> None:
    """Move the packs of a quarantine to the repository's own objects; each index last."""
    target = repository / "objects/pack"
    target.mkdir(parents=True, exist_ok=True)
    packs = (quarantined / "objects/pack").glob("pack-*")
    for file in sorted(packs, key=lambda p: (p.suffix == ".idx", p.name)):
        file.rename(target / file.name)
    sync_folder(target)


class Importer:
    """Context that turns files into one commit of a quarantine: add() each file, then commit().

    `before` is a commit that has most of the files already, or None; `archive` names the source
    in messages.
    """

    def __init__(self, quarantined: Path, archive: str, before: str | None) -> None:
        self._repo, self._archive, self._before = bare(quarantined), archive, before
        self._unmatched: set[bytes] = set()  # lines of git ls-tree that no file was equal to yet
        self._count_before = self._count = 0
        self._changes = bytearray()  # lines for fast-import, written at the end
        self._stored = 0
        self._stored_paths: set[str] = set()
        self._waiting: list[TreeFile] = []
        self._waiting_bytes = 0
        self._listing: Future[set[bytes]] | None = None

    def __enter__(self) -> Importer:
        if self._before:  # read while the first files arrive, which wait for it
            self._reader = ThreadPoolExecutor(1)
            self._listing = self._reader.submit(
                lambda: set(self._lines("ls-tree", "-r", "--full-tree", str(self._before)))
            )
        argv = ["git", *_SETTINGS, *_SMALL, *_COMMAND]
        self._process = self._repo.git.execute(argv, as_process=True, istream=-1, env=_MEMORY)
        stdin = self._process.stdin
        widen(stdin, _PIPE_BYTES)
        self._pipe = io.BufferedWriter(io.FileIO(os.dup(stdin.fileno()), "wb"), _PIPE_BYTES)
        stdin.close()
        return self

    def add(self, file: TreeFile) -> None:
        """Add one file; its content is stored unless the day before has it."""
        if self._listing is None:
            self._add(file)
            return
        self._waiting.append(file)
        self._waiting_bytes += len(file.data)
        if self._listing.done() or self._waiting_bytes > _WAITING_LIMIT:
            self._add_waiting()

    def _add_waiting(self) -> None:
        """Wait for the listing, then add the files that arrived before it."""
        if self._listing is not None:
            self._unmatched = self._listing.result()
            self._count_before, self._listing = len(self._unmatched), None
        waiting, self._waiting = self._waiting, []
        for file in waiting:
            self._add(file)

    def _add(self, file: TreeFile) -> None:
        path, data, executable = file
        blob = hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()
        mode = "100755" if executable else "100644"
        line = f"{mode} blob {blob}\t{path}".encode()
        self._count += 1
        if line in self._unmatched:
            self._unmatched.remove(line)
            return
        self._stored += 1
        self._pipe.write(b"blob\nmark :%d\ndata %d\n%b\n" % (self._stored, len(data), data))
        self._changes += f"M {mode} :{self._stored} {_quote(path)}\n".encode()
        if self._before:
            self._stored_paths.add(path)

    def commit(self, message: str, timestamp: int) -> ImportedCommit:
        """Make a commit without a parent, with every date at `timestamp` (epoch seconds).

        Raises NotTrusted where a path occurs twice, or below a file.
        """
        self._add_waiting()
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
        for line in self._unmatched:
            path = line.split(b"\t", 1)[1].decode("utf-8", "surrogateescape")
            if path not in self._stored_paths:
                write(f"D {_quote(path)}\n".encode("utf-8", "surrogateescape"))
        write(self._changes)
        write(b"\nget-mark :%d\ndone\n" % mark)
        self._pipe.close()
        commit = self._process.stdout.read().decode().strip()
        self._process.wait()
        return self._count_files(commit)

    def _count_files(self, commit: str) -> ImportedCommit:
        if self._before:
            fields = self._lines(
                "diff-tree", "-r", "--no-renames", "--name-status", self._before, commit
            )
            letters = [letter for letter, _path in zip(fields, fields, strict=True)]
            changed, files = len(letters), letters.count(b"A") - letters.count(b"D")
            files += self._count_before
        else:
            files = changed = sum(1 for _ in self._lines("ls-tree", "-r", "--name-only", commit))
        if files != self._count:
            raise NotTrusted("archive-path-twice", archive=self._archive)
        return ImportedCommit(commit, files, changed)

    def _lines(self, command: str, *arguments: str) -> Iterator[bytes]:
        """Run a git command with -z and yield the fields of its output as they arrive."""
        argv = ["git", *_SMALL, command, "-z", *arguments]
        process = self._repo.git.execute(argv, as_process=True)
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
                self._process.wait()  # raises with the last words of git
        finally:
            process = self._process.proc
            if process is not None:
                process.kill()
                process.wait()
            for pipe in (self._pipe, self._process.stdout, self._process.stderr):
                with contextlib.suppress(OSError):
                    pipe.close()


def _quote(path: str) -> str:
    """Quote a path for fast-import; it has no control characters (see archive.py)."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"') if '"' in path else path
    return f'"{escaped}"'
