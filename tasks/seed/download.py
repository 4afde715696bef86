"""Stage tarballs from mirrors: which build, with which SHA-512, and its bytes.

Layout of a mirror: MIRROR/releases/ARCH/autobuilds/latest-stage3-ARCH-FLAVOUR.txt, the pointer, is
clearsigned and names TIME/stage3-ARCH-FLAVOUR-TIME.tar.xz. Beside that tarball are .DIGESTS
(clearsigned), .asc (a detached signature) and the list of files, CONTENTS.gz.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tasks.config.seeds import Seed
from tasks.errors import BinmillError, DownloadFailed, NotTrusted
from tasks.lock import SeedPin
from tasks.seed.extract import Archive
from tasks.system import resumable
from tasks.system.files import digests_of, sha512
from tasks.system.gpgv import Role, verify_clearsigned, verify_detached
from tasks.system.http import Missing, download, public
from tasks.system.notes import note

_TEXT_LIMIT = 1 << 20
_CONTENTS_LIMIT = 64 << 20
_TARBALL_LIMIT = 16 << 30
_POINTER_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*/([A-Za-z0-9][A-Za-z0-9_.-]*))\s+([0-9]+)")
_Value = TypeVar("_Value")


class Build(NamedTuple):
    """A build of a stage as a pointer names it: path below autobuilds/, size in bytes."""

    path: str
    size: int


class ContentsDigest(NamedTuple):
    """The CONTENTS.gz of a tarball: its file name and SHA-512."""

    name: str
    sha512: str


def resolve(
    seed: Seed, mirrors: tuple[str, ...], role: Role, downloads: Path, not_before: str = ""
) -> SeedPin:
    """Pin the configured build, or else the newest of the flavour, by signed digests.

    Where no mirror has .DIGESTS, the tarball's own signature is verified; for that it is downloaded
    to the place where `obtained` looks for it. Raises NotTrusted or DownloadFailed.
    """
    size: int | None = None
    if seed.build is None:
        path, size = newest(seed, mirrors, role, downloads, not_before)
    else:
        path = f"{seed.build}/{_stem(seed)}-{seed.build}.tar.xz"
    name = Path(path).name
    try:
        digest, listing = _read_signed(
            role,
            _urls(mirrors, seed, f"{path}.DIGESTS"),
            downloads / f"{name}.DIGESTS",
            lambda text: (read_sha512(text, name), read_contents_digest(text, name)),
        )
    except Missing:
        digest, listing = _verified_sha512(role, mirrors, seed, path, downloads), None
    return SeedPin(
        arch=seed.arch,
        flavour=seed.flavour,
        path=path,
        size=size,
        sha512=digest,
        contents=f"{Path(path).parent}/{listing.name}" if listing else None,
        contents_sha512=listing.sha512 if listing else None,
    )


def newest(
    seed: Seed, mirrors: tuple[str, ...], role: Role, downloads: Path, not_before: str = ""
) -> Build:
    """Return a flavour's newest build, by the first pointer that is accepted.

    Raises NotTrusted (also where it is older than `not_before`) or DownloadFailed.
    """
    pointer = f"latest-{_stem(seed)}.txt"
    return _read_signed(
        role,
        _urls(mirrors, seed, pointer),
        downloads / pointer,
        lambda text: read_pointer(text, _stem(seed), not_before),
    )


def _stem(seed: Seed) -> str:
    return f"stage3-{seed.arch}-{seed.flavour}"


def _read_signed(
    role: Role, urls: Sequence[str], file: Path, read: Callable[[str], _Value]
) -> _Value:
    """Parse the signed text of a small file, from the first mirror whose file is accepted.

    Raises Missing when no mirror has the file, NotTrusted or DownloadFailed otherwise.
    """
    failures: list[BinmillError] = []
    for url in urls:
        try:
            download([url], file, limit=_TEXT_LIMIT)
            return read(verify_clearsigned(role, file)[1])
        except (DownloadFailed, NotTrusted) as failure:
            failures.append(failure)
            if len(urls) > 1 and not isinstance(failure, Missing):
                note("stage-mirror-skipped", url=public(url), cause=failure.message)
        finally:
            resumable.discard(file)
    refusals = [failure for failure in failures if not isinstance(failure, Missing)]
    raise (refusals or failures)[0]


def _verified_sha512(
    role: Role, mirrors: tuple[str, ...], seed: Seed, path: str, downloads: Path
) -> str:
    """Download a tarball, verify its own detached signature, and return its SHA-512."""
    tarball = downloads / Path(path).name
    signature = downloads / f"{tarball.name}.asc"
    download(_urls(mirrors, seed, f"{path}.asc"), signature, limit=_TEXT_LIMIT)
    note("stage-digests-missing", name=tarball.name)
    try:
        download(_urls(mirrors, seed, path), tarball, limit=_TARBALL_LIMIT)
        with tarball.open("rb") as stream:
            verify_detached(role, stream, tarball.name, signature)
            return digests_of(stream, "sha512")["sha512"]
    except NotTrusted:
        tarball.unlink()
        raise
    finally:
        resumable.discard(signature)


def read_pointer(text: str, stem: str, not_before: str = "") -> Build:
    """Parse the signed text of a pointer.

    Such a signature does not expire, so a mirror could serve last year's pointer for ever: a build
    before `not_before` (YYYYMMDDTHHMMSSZ) is refused. Raises NotTrusted.
    """
    for line in text.splitlines():
        match = _POINTER_LINE.fullmatch(line.strip())
        if match and match[2].startswith(f"{stem}-"):
            build = match[1].partition("/")[0]
            if build < not_before:
                raise NotTrusted("stage-pointer-older", stage=stem, build=build, locked=not_before)
            return Build(match[1], int(match[3]))
    raise NotTrusted("stage-pointer-empty", stage=stem)


def read_sha512(text: str, name: str) -> str:
    """Return the SHA-512 of exactly `name` in the signed text of a .DIGESTS; raises NotTrusted."""
    section = ""
    for line in text.splitlines():
        if line.startswith("# "):
            section = "".join(line[2:].split()[:1])
        words = line.split()
        if section == "SHA512" and len(words) == 2 and words[1] == name:
            if re.fullmatch(r"[0-9a-f]{128}", words[0]):
                return words[0]
            break
    raise NotTrusted("stage-digests-lack-file", name=name)


def read_contents_digest(text: str, name: str) -> ContentsDigest | None:
    """Return name and SHA-512 of a tarball's CONTENTS.gz, if the signed .DIGESTS has them."""
    for listing in (f"{name}.CONTENTS.gz", f"{name.partition('.tar.')[0]}.CONTENTS.gz"):
        with contextlib.suppress(NotTrusted):
            return ContentsDigest(listing, read_sha512(text, listing))
    return None


@contextlib.contextmanager
def obtained(
    seed: Seed, pin: SeedPin, mirrors: tuple[str, ...], tarball: Path
) -> Iterator[Archive]:
    """Open the pinned tarball, downloaded to `tarball` and compared with the pin before.

    The file is deleted after use; part of a download stays, to be resumed. Raises NotTrusted when
    no mirror has the pinned bytes.
    """
    fetch(seed, pin, mirrors, tarball)
    try:
        listing = _fetch_contents(seed, pin, mirrors, tarball.parent) if pin.contents else None
        with tarball.open("rb") as stream:
            yield Archive(stream, tarball.name, pin.sha512, listing, tuple(seed.setuid))
    finally:
        tarball.unlink(missing_ok=True)


@contextlib.contextmanager
def own(seed: Seed, pin: SeedPin, file: Path) -> Iterator[Archive]:
    """Open a tarball that the site provides; its digest is verified when it is extracted."""
    try:
        stream = file.open("rb")
    except OSError as error:
        raise BinmillError("stage-file-unreadable", file=file, cause=error.strerror) from error
    with stream:
        yield Archive(stream, file.name, pin.sha512, setuid=tuple(seed.setuid))


def fetch(seed: Seed, pin: SeedPin, mirrors: tuple[str, ...], target: Path) -> None:
    """Download the pinned tarball; raises NotTrusted when no mirror has those bytes."""
    if resumable.whole(target) and sha512(target) == pin.sha512:
        return  # from a run that was killed
    urls = _urls(mirrors, seed, pin.path)
    refused: list[str] = []  # URLs that served other bytes
    failures: list[str] = []
    actual = ""
    while urls and not failures:
        try:
            answer = download(urls, target, limit=pin.size or _TARBALL_LIMIT)
        except DownloadFailed as failure:
            if not refused:
                raise
            failures.append(failure.message)
            continue
        actual = sha512(target)
        if actual == pin.sha512:
            return
        target.unlink()
        urls.remove(answer.url)
        # where the file began at another mirror, that one may have sent the wrong bytes
        if answer.mixed and answer.url not in refused:
            urls.insert(0, answer.url)
        refused.append(answer.url)
    raise NotTrusted(
        "stage-not-on-mirrors",
        name=target.name,
        urls=sorted(map(public, set(refused))),
        actual=actual,
        pinned=pin.sha512,
        failures=failures,
    )


def _fetch_contents(
    seed: Seed, pin: SeedPin, mirrors: tuple[str, ...], folder: Path
) -> bytes | None:
    """Download the pinned CONTENTS.gz; None, with a note, where no mirror has it."""
    assert pin.contents is not None  # noqa: S101
    target = folder / Path(pin.contents).name
    try:
        for url in _urls(mirrors, seed, pin.contents):
            with contextlib.suppress(DownloadFailed):
                download([url], target, limit=_CONTENTS_LIMIT)
                listing = target.read_bytes()
                if hashlib.sha512(listing).hexdigest() == pin.contents_sha512:
                    return listing
    finally:
        resumable.discard(target)
    note("stage-contents-missing", name=target.name)
    return None


def _urls(mirrors: tuple[str, ...], seed: Seed, path: str) -> list[str]:
    return [f"{m.rstrip('/')}/releases/{seed.arch}/autobuilds/{path}" for m in mirrors]
