"""From an open stage tarball to a directory: decompress, judge, write, check, name.

    file -> (SHA-512) -> xz -> (judged, entry by entry) -> tar -> .NAME.tmp -> checks -> NAME

What is hashed are the very bytes that are unpacked. GNU tar writes, since Python's tarfile drops
extended attributes; without the include pattern tar drops security.capability.
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
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, cast

from tasks.errors import BinmillError, NotTrusted
from tasks.seed import contents, sanity
from tasks.seed.dir_order import Order
from tasks.seed.manifest import Inventory
from tasks.seed.policy import Admission
from tasks.seed.tar_stream import BadTar, Look, Member, relay
from tasks.system.command import require_root, run, started, widen
from tasks.system.files import closed_folder, remove_tree, sync_folder
from tasks.system.read_ahead import Ahead
from tasks.system.terminal import Progress, say

_CHUNK = 1 << 20
_WRITE_BACK_SECONDS = 2.0  # at the end somebody waits for what is left
# With as many threads as there are blocks and processors; no more memory than a stage needs.
_UNPACK = {
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
# What hardly any archive needs, and tar is slower with: it looks for access lists of every file,
# and through all directories at each of them.
_ACCESS_LISTS = "--acls"
_ANY_ORDER = "--delay-directory-restore"


@dataclass(frozen=True)
class Archive:
    """An open stage tarball: what it is called, and the SHA-512 that its bytes must have.

    `listing` is what is in it by its makers' word (CONTENTS), if that could be had; `expected`
    are paths that may be setuid beside those where programs lie.
    """

    stream: BinaryIO
    name: str
    sha512: str
    listing: bytes | None = None
    expected: Iterable[str] = field(default=())


def extract(archive: Archive, target: Path, trash: Path) -> Admission:
    """Unpack a stage into `target` in one step, with owners, modes, links and attributes.

    Nothing has that name before everything was checked, and the listing for `doit fsck` lies
    beside it; what a failure leaves is deleted. Raises NotTrusted for an archive that is not the
    pinned one, or that is no stage, BinmillError where this machine could not write it.
    """
    require_root("unpack a stage with its owners and devices")
    scratch = target.with_name(f".{target.name}.tmp")
    listing = target.with_name(f"{target.name}.listing")
    remove_tree(scratch, trash)
    closed_folder(trash)  # now: on a full disk there is no room for it
    try:
        with _writing_back(scratch.parent):
            admitted, kept = _unpacked(archive, scratch, trash)
        with ThreadPoolExecutor(1) as beside:
            synced = beside.submit(run, "sync", "-f", scratch)
            sanity.check(scratch)
            sanity.check_kept(scratch, admitted.privileged)
            if archive.listing is not None:
                contents.check(scratch, archive.listing, admitted.entries, archive.name)
            kept.write(scratch, admitted.folders, listing)
            synced.result()  # before its name says that it is whole
        scratch.rename(target)
    except BaseException:
        with contextlib.suppress(OSError, BinmillError):  # the next run does it
            listing.unlink(missing_ok=True)
            remove_tree(scratch, trash)
        raise
    sync_folder(target.parent)
    return admitted


class _Unusual(Exception):
    """The archive needs an option of tar's that was not given."""

    def __init__(self, option: str) -> None:
        super().__init__(option)
        self.option = option


def _unpacked(archive: Archive, scratch: Path, trash: Path) -> tuple[Admission, Inventory]:
    """Unpack it as nearly all are; from the beginning with an option more when that is needed."""
    options: list[str] = []
    while True:
        try:
            return _write(archive, _begun(scratch), options)
        except _Unusual as found:
            options.append(found.option)
            remove_tree(scratch, trash)


def _begun(scratch: Path) -> Path:
    scratch.mkdir(parents=True)
    for inherited in ("default", "access"):  # from the folder above; what is made below would, too
        with contextlib.suppress(OSError):
            os.removexattr(scratch, f"system.posix_acl_{inherited}")
    scratch.chmod(0o755)  # if the archive does not say
    return scratch


def _write(archive: Archive, scratch: Path, options: Sequence[str]) -> tuple[Admission, Inventory]:
    unpack = _UNPACK.get(Path(archive.name).suffix)
    if unpack is None:
        known = ", ".join(_UNPACK)
        raise BinmillError(
            f"{archive.name}: compressed in an unknown way", f"known are tarballs in {known}"
        )
    admission = Admission(os.fstat(archive.stream.fileno()).st_size, archive.expected)
    inventory, order = Inventory(), Order()

    def judge(member: Member) -> Look | None:
        path = admission(member)
        if member.listed and _ACCESS_LISTS not in options:
            raise _Unusual(_ACCESS_LISTS)
        back = order.goes_back(member.name, path, directory=member.kind == "directory")
        if back and _ANY_ORDER not in options:
            raise _Unusual(_ANY_ORDER)
        return inventory.add(path, member)

    clean = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    with (
        os.fdopen(os.memfd_create("binmill-tar"), "w+b") as complaints,
        _Feeder(archive) as feeder,
        # without TAR_OPTIONS, XZ_OPT and the like of the caller
        started(
            *unpack,
            env=clean,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as unpacker,
        started(
            *_TAR, *options, "-C", scratch, env=clean, stdin=subprocess.PIPE, stderr=complaints
        ) as tar,
    ):
        feeder.feed(cast(IO[bytes], unpacker.stdin))
        try:
            with (
                _ending(cast(IO[bytes], tar.stdin)) as sink,
                Ahead(cast(BinaryIO, unpacker.stdout)) as unpacked,
            ):
                relay(unpacked, sink, judge)
        except BadTar as bad:
            raise NotTrusted(
                f"{archive.name} is not accepted as a stage: {bad}",
                "nothing was kept of it; take another build, or pack it again without that",
            ) from bad
        except BrokenPipeError:
            pass  # tar has ended, and says why
        if tar.wait() != 0 or unpacker.wait() != 0:
            raise BinmillError(
                f"{archive.name} could not be unpacked: {_first_line(complaints)}",
                "check the disk's space (df -h, df -i), then run the same command again",
            )
        if (found := feeder.digest()) != archive.sha512:
            raise NotTrusted(
                f"{archive.name} is not the pinned file (SHA-512 {found[:16]}..., "
                f"pinned is {archive.sha512[:16]}...)",
                "see who wrote to it; is it meant to be another one, pin that, and run it again",
            )
        if warning := _first_line(complaints, ""):
            say(f"  {warning}")
    return admission, inventory


class _Feeder:
    """Hands a file to a decompressor from a thread of its own, and takes its digest meanwhile."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._hash = hashlib.sha512()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Feeder:
        return self

    def feed(self, pipe: IO[bytes]) -> None:
        """Begin; `pipe` is closed at the end."""
        widen(pipe)
        self._thread = threading.Thread(target=self._run, args=(pipe,), daemon=True)
        self._thread.start()

    def digest(self) -> str:
        """The SHA-512 of the whole file, once all of it was read."""
        assert self._thread is not None  # noqa: S101
        self._thread.join()
        return self._hash.hexdigest()

    def _run(self, pipe: IO[bytes]) -> None:
        descriptor, place = self._archive.stream.fileno(), 0
        size = os.fstat(descriptor).st_size
        # OSError: whoever reads the pipe has ended, and its exit code says how
        with Progress(f"{self._archive.name} (unpacking)", size) as bar:
            while not self._stopped.is_set():
                chunk = os.pread(descriptor, _CHUNK, place)
                if not chunk:
                    break
                self._hash.update(chunk)
                with contextlib.suppress(OSError, ValueError):
                    pipe.write(chunk)
                place += len(chunk)
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
def _ending(pipe: IO[bytes]) -> Iterator[BinaryIO]:
    """A pipe to write to, which is closed if all went well."""
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
def _writing_back(folder: Path) -> Iterator[None]:
    """What is written goes to the disk meanwhile: the sync at the end has little left to do."""
    ended = threading.Event()

    def write_back() -> None:
        while not ended.wait(_WRITE_BACK_SECONDS):
            run("sync", "-f", folder, check=False)

    thread = threading.Thread(target=write_back, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _first_line(complaints: BinaryIO, nothing: str = "it is damaged") -> str:
    """The most telling line of what tar said, without its own name."""
    complaints.seek(0)
    lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
    full = [line for line in lines if "No space left" in line]
    return (full or lines)[0].partition(": ")[2][:300] if lines else nothing
