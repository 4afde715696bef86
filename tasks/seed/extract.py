"""From an open stage tarball to a directory: decompress, check, unpack, verify, rename.

    file -> (SHA-512) -> xz -> (checks of entries) -> tar -> .NAME.tmp -> (checks of tree) -> NAME

The hash is taken of the very bytes that are unpacked. GNU tar writes the files, since Python's
tarfile drops extended attributes; without the include pattern tar drops security.capability.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, cast

from tasks.errors import BinmillError, NotTrusted
from tasks.seed import contents, sanity
from tasks.seed.dir_order import DirectoryOrder
from tasks.seed.manifest import ManifestWriter
from tasks.seed.policy import StagePolicy
from tasks.seed.tar_stream import ArchiveRefused, Consumer, TarEntry, copy_checked
from tasks.system.command import require_root, run, started, widen
from tasks.system.files import remove_tree, staged
from tasks.system.notes import note
from tasks.system.progress import Progress
from tasks.system.read_ahead import ReadAhead

_CHUNK = 1 << 20
_SYNC_SECONDS = 2.0  # between syncs, so that the last one has little left to write
# With as many threads as there are blocks and processors; no more memory than a stage needs.
_DECOMPRESSORS = {
    ".xz": ("xz", "-T0", "--memlimit-decompress=1GiB", "-dc"),
    ".zst": ("zstd", "--long=30", "-qdc"),
    ".bz2": ("bzip2", "-dc"),
    ".gz": ("gzip", "-dc"),
}
_TAR = (
    "tar",
    "--extract",
    "--file=-",
    "--preserve-permissions",
    "--same-owner",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*.*",
    "--warning=no-timestamp",
    "--blocking-factor=2048",
)
# Options that few archives need and that make tar slower: with the first it looks for access lists
# of every file, with the second it searches all pending directories at each entry.
_ACCESS_LISTS = "--acls"
_ANY_ORDER = "--delay-directory-restore"


@dataclass(frozen=True)
class Archive:
    """An open stage tarball: its name, and the SHA-512 that its bytes must have.

    `contents` is its makers' list of files (CONTENTS.gz), if there is one; `setuid` are paths that
    may be setuid, setgid or capable outside the directories for programs.
    """

    stream: BinaryIO
    name: str
    sha512: str
    contents: bytes | None = None
    setuid: Iterable[str] = ()


@dataclass(frozen=True)
class Totals:
    """The number of entries that were unpacked, and the bytes of their data in the archive."""

    entries: int
    size: int


def extract(archive: Archive, target: Path, trash: Path) -> Totals:
    """Unpack a stage into `target` in one step, with owners, modes, links and attributes.

    `target` appears after all checks have passed, its listing for `doit fsck` beside it; after a
    failure nothing is left. Raises NotTrusted for an archive that is not the pinned one or not
    acceptable as a stage, BinmillError where this machine could not write it.
    """
    require_root("unpack a stage with its owners and devices")
    listing = target.with_name(f"{target.name}.listing")
    try:
        with staged(target, trash, sync=lambda _: None) as scratch:  # synced beside the checks
            with _background_sync(scratch):
                policy, manifest = _unpack(archive, scratch, trash)
            with ThreadPoolExecutor(1) as executor:
                sync = executor.submit(run, "sync", "-f", scratch)
                sanity.check(scratch)
                sanity.check_privileges(scratch, policy.privileged)
                if archive.contents is not None:
                    contents.compare(scratch, archive.contents, policy.entries, archive.name)
                manifest.write(scratch, policy.folders, listing)
                sync.result()
    except BaseException as error:
        listing.unlink(missing_ok=True)
        if isinstance(error, ArchiveRefused):
            raise NotTrusted(
                "stage-refused", archive=archive.name, reason=error.code, cause=error.message
            ) from error
        raise
    return Totals(policy.entries, policy.size)


class _OptionNeeded(Exception):
    """The archive needs an option that tar was started without."""

    def __init__(self, option: str) -> None:
        super().__init__(option)
        self.option = option


def _unpack(archive: Archive, scratch: Path, trash: Path) -> tuple[StagePolicy, ManifestWriter]:
    """Unpack with the options that nearly all archives need; restart where one needs another."""
    options: list[str] = []
    while True:
        try:
            return _unpack_once(archive, _make_scratch(scratch), options)
        except _OptionNeeded as needed:
            options.append(needed.option)
            remove_tree(scratch, trash)


def _make_scratch(scratch: Path) -> Path:
    scratch.mkdir(exist_ok=True)
    for acl in ("default", "access"):  # from the parent; files made below would inherit, too
        with contextlib.suppress(OSError):
            os.removexattr(scratch, f"system.posix_acl_{acl}")
    scratch.chmod(0o755)  # for an archive without an entry for its root directory
    return scratch


def _unpack_once(
    archive: Archive, scratch: Path, options: Sequence[str]
) -> tuple[StagePolicy, ManifestWriter]:
    decompressor = _DECOMPRESSORS.get(Path(archive.name).suffix)
    if decompressor is None:
        raise BinmillError(
            "stage-compression-unknown", archive=archive.name, known=list(_DECOMPRESSORS)
        )
    policy = StagePolicy(os.fstat(archive.stream.fileno()).st_size, archive.setuid)
    manifest, order = ManifestWriter(), DirectoryOrder()

    def check(entry: TarEntry) -> Consumer | None:
        path = policy.admit(entry)
        if entry.has_acl and _ACCESS_LISTS not in options:
            raise _OptionNeeded(_ACCESS_LISTS)
        reopens = order.reopens(entry.name, path, directory=entry.kind == "directory")
        if reopens and _ANY_ORDER not in options:
            raise _OptionNeeded(_ANY_ORDER)
        return manifest.add(path, entry)

    # without TAR_OPTIONS, XZ_OPT and the like of the caller
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    with (
        os.fdopen(os.memfd_create("binmill-tar"), "w+b") as messages,
        _Feeder(archive) as feeder,
        started(
            *decompressor,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as unpacker,
        started(
            *_TAR,
            *options,
            "-C",
            scratch,
            env=environment,
            stdin=subprocess.PIPE,
            stderr=messages,
        ) as tar,
    ):
        feeder.start(cast(IO[bytes], unpacker.stdin))
        with (
            contextlib.suppress(BrokenPipeError),  # tar has ended; its message says why
            _closing_pipe(cast(IO[bytes], tar.stdin)) as sink,
            ReadAhead(cast(BinaryIO, unpacker.stdout)) as stream,
        ):
            copy_checked(stream, sink, check)
        status = tar.wait()
        message = _first_message(messages) or (f"exit status {status}" if status else "")
        if status != 0:
            raise BinmillError("stage-not-unpacked", archive=archive.name, message=message)
        if unpacker.wait() != 0:
            raise BinmillError("stage-damaged", archive=archive.name, decompressor=decompressor[0])
        if (actual := feeder.digest()) != archive.sha512:
            raise NotTrusted(
                "stage-not-pinned", archive=archive.name, actual=actual, pinned=archive.sha512
            )
        if message:
            note("stage-tar-warning", archive=archive.name, message=message)
    return policy, manifest


class _Feeder:
    """Feeds a file to a decompressor from a thread of its own, and hashes it on the way."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._hash = hashlib.sha512()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Feeder:
        return self

    def start(self, pipe: IO[bytes]) -> None:
        """Start the thread; it closes `pipe` at the end of the file."""
        widen(pipe)
        self._thread = threading.Thread(target=self._run, args=(pipe,), daemon=True)
        self._thread.start()

    def digest(self) -> str:
        """Wait for the end of the file, and return its SHA-512."""
        assert self._thread is not None  # noqa: S101
        self._thread.join()
        return self._hash.hexdigest()

    def _run(self, pipe: IO[bytes]) -> None:
        descriptor, position = self._archive.stream.fileno(), 0
        size = os.fstat(descriptor).st_size
        # OSError: the decompressor has ended, and its exit status says how
        with Progress(f"{self._archive.name} (unpacking)", size) as bar:
            while not self._stopped.is_set():
                chunk = os.pread(descriptor, _CHUNK, position)
                if not chunk:
                    break
                self._hash.update(chunk)
                with contextlib.suppress(OSError, ValueError):
                    pipe.write(chunk)
                position += len(chunk)
                bar.advance(len(chunk))
            with contextlib.suppress(OSError, ValueError):
                pipe.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()


@contextlib.contextmanager
def _closing_pipe(pipe: IO[bytes]) -> Iterator[BinaryIO]:
    """Give a buffered writer to a pipe; the pipe is closed only if the block succeeds."""
    widen(pipe)
    sink = io.BufferedWriter(io.FileIO(os.dup(pipe.fileno()), "wb"))
    try:
        yield sink
        sink.close()
        pipe.close()
    finally:
        with contextlib.suppress(OSError):
            sink.close()


@contextlib.contextmanager
def _background_sync(folder: Path) -> Iterator[None]:
    """Sync the file system every few seconds during the block, so that the last sync is short."""
    ended = threading.Event()

    def sync() -> None:
        while not ended.wait(_SYNC_SECONDS):
            run("sync", "-f", folder, check=False)

    thread = threading.Thread(target=sync, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _first_message(stream: BinaryIO) -> str:
    """Return the first line that tar printed, or the one about a full disk; without its prefix."""
    stream.seek(0)
    lines = stream.read().decode("utf-8", "replace").strip().splitlines()
    full = [line for line in lines if "No space left" in line]
    return (full or lines)[0].partition(": ")[2][:300] if lines else ""
