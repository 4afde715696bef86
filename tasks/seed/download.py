"""Seeds: where a stage tarball comes from, and the digest by which it is pinned.

Layout of a mirror: MIRROR/releases/ARCH/autobuilds/latest-stage3-ARCH-FLAVOUR.txt (clearsigned)
names TS/stage3-ARCH-FLAVOUR-TS.tar.xz; beside that lie .DIGESTS, clearsigned too, .asc, a
detached signature, and the listing CONTENTS.gz.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tasks.config.seeds import Seed
from tasks.errors import BinmillError, DownloadFailed, NotTrusted
from tasks.lock import SeedPin
from tasks.seed.extract import Archive
from tasks.system import resumable
from tasks.system.files import digests_of, sha512
from tasks.system.gpgv import Role, verify_clearsigned, verify_detached
from tasks.system.http import Missing, download, public
from tasks.system.terminal import say

_TEXT_LIMIT = 1 << 20
_LISTING_LIMIT = 64 << 20
_TARBALL_LIMIT = 16 << 30
_POINTER_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*/([A-Za-z0-9][A-Za-z0-9_.-]*))\s+([0-9]+)")
_Read = TypeVar("_Read")


def resolve(
    seed: Seed, mirrors: tuple[str, ...], role: Role, downloads: Path, not_before: str = ""
) -> SeedPin:
    """The build that is wanted, or the newest of a flavour by its signed pointer, and its digest.

    Where no mirror has signed digests of it, the tarball's own signature counts; then it is
    downloaded, to where `obtained` will find it. Raises NotTrusted or DownloadFailed.
    """
    size: int | None = None
    if seed.build is None:
        path, size = newest(seed, mirrors, role, downloads, not_before)
    else:
        path = f"{seed.build}/{_stem(seed)}-{seed.build}.tar.xz"
    name = Path(path).name
    try:
        digest, listing = _accepted(
            role,
            _urls(mirrors, seed, f"{path}.DIGESTS"),
            downloads / f"{name}.DIGESTS",
            lambda text: (digest_of(text, name), listed(text, name)),
        )
    except Missing:
        digest, listing = _signed_itself(role, mirrors, seed, path, downloads), None
    return SeedPin(
        arch=seed.arch,
        flavour=seed.flavour,
        path=path,
        size=size,
        sha512=digest,
        contents=f"{Path(path).parent}/{listing[0]}" if listing else None,
        contents_sha512=listing[1] if listing else None,
    )


def newest(
    seed: Seed, mirrors: tuple[str, ...], role: Role, downloads: Path, not_before: str = ""
) -> tuple[str, int]:
    """Path and size in bytes of a flavour's newest build, by the first pointer that is accepted.

    Raises NotTrusted (also where it is older than `not_before`) or DownloadFailed.
    """
    pointer = f"latest-{_stem(seed)}.txt"
    return _accepted(
        role,
        _urls(mirrors, seed, pointer),
        downloads / pointer,
        lambda text: pointed(text, _stem(seed), not_before),
    )


def _stem(seed: Seed) -> str:
    return f"stage3-{seed.arch}-{seed.flavour}"


def _accepted(role: Role, urls: Sequence[str], file: Path, read: Callable[[str], _Read]) -> _Read:
    """What `read` finds in the signed text of a small file, from the first mirror where it can.

    Raises Missing when no mirror has the file, NotTrusted or DownloadFailed otherwise.
    """
    failures: list[BinmillError] = []
    for url in urls:
        try:
            download([url], file, limit=_TEXT_LIMIT)
            return read(verify_clearsigned(role, file)[1])
        except (DownloadFailed, NotTrusted) as failed:
            failures.append(failed)
            if len(urls) > 1 and not isinstance(failed, Missing):
                say(f"  passed over: {public(url)}: {failed.message}")
        finally:
            resumable.discard(file)
    refused = [failed for failed in failures if not isinstance(failed, Missing)]
    raise (refused or failures)[0]


def _signed_itself(
    role: Role, mirrors: tuple[str, ...], seed: Seed, path: str, downloads: Path
) -> str:
    """The SHA-512 of a tarball whose own detached signature is accepted."""
    tarball = downloads / Path(path).name
    signature = downloads / f"{tarball.name}.asc"
    download(_urls(mirrors, seed, f"{path}.asc"), signature, limit=_TEXT_LIMIT)
    say(f"  no mirror has {tarball.name}.DIGESTS: its own signature is asked instead")
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


def pointed(text: str, stem: str, not_before: str = "") -> tuple[str, int]:
    """The path and size in bytes that a pointer's signed text names.

    Such a signature does not expire, and a mirror could serve last year's for ever: a build before
    `not_before` (YYYYMMDDTHHMMSSZ) is refused. Raises NotTrusted.
    """
    for line in text.splitlines():
        match = _POINTER_LINE.fullmatch(line.strip())
        if match and match[2].startswith(f"{stem}-"):
            build = match[1].partition("/")[0]
            if build < not_before:
                raise NotTrusted(
                    f"its newest {stem} is {build}, older than the locked {not_before}",
                    f'try another mirror; if it is meant, set `build = "{build}"` in [seeds]',
                )
            return match[1], int(match[3])
    raise NotTrusted(f"latest-{stem}.txt names no {stem} tarball", "try another mirror")


def digest_of(text: str, name: str) -> str:
    """The SHA-512 of exactly `name` in the signed text of a .DIGESTS file."""
    section = ""
    for line in text.splitlines():
        if line.startswith("# "):
            section = "".join(line[2:].split()[:1])
        words = line.split()
        if section == "SHA512" and len(words) == 2 and words[1] == name:
            if re.fullmatch(r"[0-9a-f]{128}", words[0]):
                return words[0]
            break
    raise NotTrusted(f"{name}.DIGESTS has no SHA512 of {name}", "try another mirror")


def listed(text: str, name: str) -> tuple[str, str] | None:
    """Name and SHA-512 of a tarball's listing, if the signed text of its .DIGESTS has them."""
    for listing in (f"{name}.CONTENTS.gz", f"{name.partition('.tar.')[0]}.CONTENTS.gz"):
        with contextlib.suppress(NotTrusted):
            return listing, digest_of(text, listing)
    return None


@contextlib.contextmanager
def obtained(
    seed: Seed, pin: SeedPin, mirrors: tuple[str, ...], tarball: Path
) -> Iterator[Archive]:
    """The pinned tarball, open: what a mirror gives is held against the pin before.

    It lies at `tarball` until it was used; half a download stays there, to be continued. Raises
    NotTrusted when no mirror has those bytes.
    """
    obtain(seed, pin, mirrors, tarball)
    try:
        listing = _listing(seed, pin, mirrors, tarball.parent) if pin.contents else None
        with tarball.open("rb") as stream:
            yield Archive(stream, tarball.name, pin.sha512, listing, tuple(seed.setuid))
    finally:
        tarball.unlink(missing_ok=True)


@contextlib.contextmanager
def own(seed: Seed, pin: SeedPin, file: Path) -> Iterator[Archive]:
    """A tarball of one's own, open; its digest is taken while it is unpacked."""
    try:
        stream = file.open("rb")
    except OSError as error:
        raise BinmillError(
            f"{file} cannot be read: {error.strerror}", "see `file` in config.toml [seeds]"
        ) from error
    with stream:
        yield Archive(stream, file.name, pin.sha512, expected=tuple(seed.setuid))


def obtain(seed: Seed, pin: SeedPin, mirrors: tuple[str, ...], target: Path) -> None:
    """Download the pinned tarball to `target`; raises NotTrusted when no mirror has those bytes."""
    if resumable.whole(target) and sha512(target) == pin.sha512:
        return  # of a run that was killed
    urls = _urls(mirrors, seed, pin.path)
    cleared: set[str] = set()
    refusal = ""
    while urls or not refusal:
        try:
            got = download(urls, target, limit=pin.size or _TARBALL_LIMIT)
        except DownloadFailed as failed:
            if not refusal:
                raise
            refusal += f"; {failed.message}"
            break
        found = sha512(target)
        if found == pin.sha512:
            return
        target.unlink()
        urls.remove(got.url)
        if got.mixed and got.url not in cleared:  # the mirror it began at may be the liar
            cleared.add(got.url)
            urls.insert(0, got.url)
        refusal = (
            f"{public(got.url)} is not the pinned file (SHA-512 {found[:16]}..., "
            f"config.lock has {pin.sha512[:16]}...)"
        )
    raise NotTrusted(
        refusal,
        "add a mirror that still has it, or run `doit lock` to take the newest build",
    )


def _listing(seed: Seed, pin: SeedPin, mirrors: tuple[str, ...], folder: Path) -> bytes | None:
    """The pinned CONTENTS.gz; None, and a line that says so, where no mirror has it."""
    assert pin.contents is not None  # noqa: S101
    target = folder / Path(pin.contents).name
    try:
        for url in _urls(mirrors, seed, pin.contents):
            with contextlib.suppress(DownloadFailed):
                download([url], target, limit=_LISTING_LIMIT)
                found = target.read_bytes()
                if hashlib.sha512(found).hexdigest() == pin.contents_sha512:
                    return found
    finally:
        resumable.discard(target)
    say(f"  no mirror has the pinned {target.name}: the stage is not held against it")
    return None


def _urls(mirrors: tuple[str, ...], seed: Seed, path: str) -> list[str]:
    return [f"{m.rstrip('/')}/releases/{seed.arch}/autobuilds/{path}" for m in mirrors]
