"""Stage tarballs from mirrors: which build, with which SHA-512, and its bytes.

Layout of a mirror: MIRROR/releases/ARCH/autobuilds/latest-stage3-ARCH-FLAVOUR.txt, the pointer, is
clearsigned and names TIME/stage3-ARCH-FLAVOUR-TIME.tar.xz. Beside that tarball are .DIGESTS
(clearsigned), .asc (a detached signature) and the list of files, CONTENTS.gz.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tasks.config.seeds import Seed
from tasks.errors import BinmillError, DownloadFailed, NotTrusted
from tasks.lock import SeedPin
from tasks.seed.extract import Archive
from tasks.system import resumable
from tasks.system.files import digests_of, sha512
from tasks.system.gpgv import Role, verify_clearsigned, verify_detached
from tasks.system.http import NotOnMirrors, download
from tasks.system.notes import note
from tasks.text import without_password

_TEXT_LIMIT = 1 << 20
_CONTENTS_LIMIT = 64 << 20
_TARBALL_LIMIT = 16 << 30
_POINTER_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*/([A-Za-z0-9][A-Za-z0-9_.-]*))\s+([0-9]+)")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class StageSource:
    """A configured stage on a list of mirrors, and a private folder for its downloads."""

    seed: Seed
    mirrors: tuple[str, ...]
    downloads: Path

    @property
    def stem(self) -> str:
        """The beginning of its file names."""
        return f"stage3-{self.seed.arch}-{self.seed.flavour}"

    def urls(self, path: str) -> list[str]:
        """The URLs of a file below autobuilds/, one for each mirror."""
        arch = self.seed.arch
        return [f"{m.rstrip('/')}/releases/{arch}/autobuilds/{path}" for m in self.mirrors]


@dataclass(frozen=True)
class Build:
    """A build of a stage: the path of its tarball below autobuilds/, its size in bytes if known."""

    path: str
    size: int | None = None


@dataclass(frozen=True)
class ContentsDigest:
    """The CONTENTS.gz of a tarball: its file name and SHA-512."""

    name: str
    sha512: str


def resolve(source: StageSource, role: Role, not_before: str = "") -> SeedPin:
    """Pin the configured build, or else the newest of the flavour, by signed digests.

    Where no mirror has .DIGESTS, the tarball's own signature is verified; for that it is downloaded
    to the place where `open_download` looks for it. Raises NotTrusted or DownloadFailed.
    """
    seed = source.seed
    if seed.build is None:
        build = newest_build(source, role, not_before)
    else:
        build = Build(f"{seed.build}/{source.stem}-{seed.build}.tar.xz")
    name = Path(build.path).name
    try:
        digest, listing = _read_signed(
            source,
            role,
            f"{build.path}.DIGESTS",
            lambda text: (read_sha512(text, name), read_contents_digest(text, name)),
        )
    except NotOnMirrors:
        digest, listing = _verified_sha512(source, role, build.path), None
    return SeedPin(
        arch=seed.arch,
        flavour=seed.flavour,
        path=build.path,
        size=build.size,
        sha512=digest,
        contents=f"{Path(build.path).parent}/{listing.name}" if listing else None,
        contents_sha512=listing.sha512 if listing else None,
    )


def newest_build(source: StageSource, role: Role, not_before: str = "") -> Build:
    """Return a flavour's newest build, by the first pointer that is accepted.

    Raises NotTrusted (also where it is older than `not_before`) or DownloadFailed.
    """
    return _read_signed(
        source,
        role,
        f"latest-{source.stem}.txt",
        lambda text: read_pointer(text, source.stem, not_before),
    )


def _read_signed(
    source: StageSource, role: Role, path: str, read: Callable[[str], _Value]
) -> _Value:
    """Parse the signed text of a small file, from the first mirror whose file is accepted.

    Raises NotOnMirrors when no mirror has the file, NotTrusted or DownloadFailed otherwise.
    """
    failures: list[BinmillError] = []
    file = source.downloads / Path(path).name
    for url in source.urls(path):
        try:
            download([url], file, limit=_TEXT_LIMIT)
            return read(verify_clearsigned(role, file)[1])
        except (DownloadFailed, NotTrusted) as failure:
            failures.append(failure)
            if len(source.mirrors) > 1 and not isinstance(failure, NotOnMirrors):
                note("stage-mirror-skipped", url=without_password(url), cause=failure.message)
        finally:
            resumable.discard(file)
    refusals = [failure for failure in failures if not isinstance(failure, NotOnMirrors)]
    raise (refusals or failures)[0]


def _verified_sha512(source: StageSource, role: Role, path: str) -> str:
    """Download a tarball, verify its own detached signature, and return its SHA-512."""
    tarball = source.downloads / Path(path).name
    signature = source.downloads / f"{tarball.name}.asc"
    download(source.urls(f"{path}.asc"), signature, limit=_TEXT_LIMIT)
    note("stage-digests-missing", name=tarball.name)
    try:
        download(source.urls(path), tarball, limit=_TARBALL_LIMIT)
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
def open_download(source: StageSource, pin: SeedPin) -> Iterator[Archive]:
    """Download the pinned tarball, compare it with the pin, and open it.

    The file is deleted after use; part of a download stays, to be resumed. Raises NotTrusted when
    no mirror has the pinned bytes.
    """
    tarball = fetch(source, pin)
    try:
        listing = _fetch_contents(source, pin.contents, pin.contents_sha512)
        with tarball.open("rb") as stream:
            yield Archive(stream, tarball.name, pin.sha512, listing, tuple(source.seed.setuid))
    finally:
        tarball.unlink(missing_ok=True)


@contextlib.contextmanager
def open_local_file(seed: Seed, pin: SeedPin, file: Path) -> Iterator[Archive]:
    """Open a tarball that the site provides; its digest is verified when it is extracted."""
    try:
        stream = file.open("rb")
    except OSError as error:
        raise BinmillError("stage-file-unreadable", file=file, cause=error.strerror) from error
    with stream:
        yield Archive(stream, file.name, pin.sha512, setuid=tuple(seed.setuid))


def fetch(source: StageSource, pin: SeedPin) -> Path:
    """Download the pinned tarball; raises NotTrusted when no mirror has those bytes."""
    target = source.downloads / Path(pin.path).name
    if resumable.is_complete(target) and sha512(target) == pin.sha512:
        return target  # from a run that was killed
    urls = source.urls(pin.path)
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
            return target
        target.unlink()
        urls.remove(answer.url)
        # where the file began at another mirror, that one may have sent the wrong bytes
        if answer.mixed and answer.url not in refused:
            urls.insert(0, answer.url)
        refused.append(answer.url)
    raise NotTrusted(
        "stage-not-on-mirrors",
        name=target.name,
        urls=sorted(map(without_password, set(refused))),
        actual=actual,
        pinned=pin.sha512,
        failures=failures,
    )


def _fetch_contents(source: StageSource, path: str | None, digest: str | None) -> bytes | None:
    """Download the pinned CONTENTS.gz, if any; None, with a note, where no mirror has it."""
    if path is None:
        return None
    target = source.downloads / Path(path).name
    try:
        for url in source.urls(path):
            with contextlib.suppress(DownloadFailed):
                download([url], target, limit=_CONTENTS_LIMIT)
                listing = target.read_bytes()
                if hashlib.sha512(listing).hexdigest() == digest:
                    return listing
    finally:
        resumable.discard(target)
    note("stage-contents-missing", name=target.name)
    return None
