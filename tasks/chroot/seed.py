"""Seeds: stage tarballs, found by a signed pointer, pinned by digest, extracted once.

Layout of a mirror: MIRROR/releases/ARCH/autobuilds/latest-stage3-ARCH-FLAVOUR.txt (clearsigned)
names TS/stage3-ARCH-FLAVOUR-TS.tar.xz; beside that lies .DIGESTS, clearsigned too.
"""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path

from tasks.config import Seed
from tasks.errors import BinmillError, DownloadFailed, NotTrusted
from tasks.lock import SeedPin
from tasks.system.command import require_root, run, started
from tasks.system.files import remove_tree, sha512, sync_folder
from tasks.system.gpgv import Role, verify_clearsigned
from tasks.system.http import download, public

_TEXT_LIMIT = 1 << 20
_TARBALL_LIMIT = 16 << 30
_POINTER_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*/([A-Za-z0-9][A-Za-z0-9_.-]*))\s+([0-9]+)")
_UNPACK = {".xz": ("xz", "-T0"), ".zst": ("zstd",), ".bz2": ("bzip2",), ".gz": ("gzip",)}


def resolve(seed: Seed, mirrors: tuple[str, ...], role: Role, scratch: Path) -> SeedPin:
    """The newest build of a flavour, by its signed pointer and signed digests."""
    stem = f"stage3-{seed.arch}-{seed.flavour}"
    pointer = scratch / f"latest-{stem}.txt"
    download([_url(m, seed, pointer.name) for m in mirrors], pointer, limit=_TEXT_LIMIT)
    _, text = verify_clearsigned(role, pointer)
    path, size = pointed(text, stem)
    digests = scratch / f"{Path(path).name}.DIGESTS"
    download([_url(m, seed, f"{path}.DIGESTS") for m in mirrors], digests, limit=_TEXT_LIMIT)
    _, text = verify_clearsigned(role, digests)
    return SeedPin(
        arch=seed.arch, flavour=seed.flavour, path=path, size=size,
        sha512=digest_of(text, Path(path).name),
    )  # fmt: skip


def pointed(text: str, stem: str) -> tuple[str, int]:
    """The path and size in bytes that a pointer's signed text names."""
    for line in text.splitlines():
        match = _POINTER_LINE.fullmatch(line.strip())
        if match and match[2].startswith(f"{stem}-"):
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


def obtain(seed: Seed, pin: SeedPin, mirrors: tuple[str, ...], target: Path) -> None:
    """Download the pinned tarball to `target`; raises NotTrusted when no mirror has those bytes."""
    urls = [_url(mirror, seed, pin.path) for mirror in mirrors]
    cleared: set[str] = set()
    refusal = ""
    while urls or not refusal:
        try:
            got = download(urls, target, limit=_TARBALL_LIMIT)
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


def extract(tarball: Path, target: Path, trash: Path) -> None:
    """Unpack a stage into `target` in one step, with owners, modes, links and capabilities.

    Raises BinmillError when what came out is no stage. GNU tar does it: Python's tarfile drops
    extended attributes, and without the include pattern tar drops security.capability.
    """
    require_root("unpack a stage with its owners and devices")
    scratch = target.with_name(f".{target.name}.tmp")
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    unpack = _UNPACK.get(tarball.suffix)
    if unpack is None:
        raise BinmillError(f"{tarball.name}: compressed in an unknown way")
    with (
        tarball.open("rb") as packed,
        started(
            *unpack, "-dc", stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as source,
        started(
            "tar", "-xpf", "-", "--numeric-owner", "--xattrs", "--xattrs-include=*.*",
            "-C", scratch, stdin=source.stdout, stderr=subprocess.PIPE,
        ) as tar,
    ):  # fmt: skip
        assert source.stdout is not None  # noqa: S101
        source.stdout.close()
        _, complaint = tar.communicate()
        if tar.returncode != 0 or source.wait() != 0:
            said = (complaint or b"").decode("utf-8", "replace").strip().splitlines()
            raise BinmillError(
                f"{tarball.name} could not be unpacked: {said[0] if said else 'it is damaged'}",
                "check the disk's space, then run the same command again",
            )
    check_stage(scratch)
    run("sync", "-f", scratch)  # before its name says that it is whole
    scratch.rename(target)
    sync_folder(target.parent)


def check_stage(root: Path) -> None:
    """Whether an extracted tree is a stage that can be entered and has Portage."""
    status = root.stat()
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o022:
        raise NotTrusted(f"the stage's root directory is not root's alone ({root})")
    for wanted in ("bin/sh", "usr/bin/emerge", "usr/bin/env"):
        if not _exists_inside(root, wanted):
            raise NotTrusted(f"this is no Gentoo stage: it has no /{wanted}", "check [seeds]")


def _exists_inside(root: Path, path: str, depth: int = 20) -> bool:
    """Whether a path leads to a file when `root` is the root; links are followed inside only."""
    here: list[str] = []
    pending = path.split("/")
    while pending:
        part = pending.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            here = here[:-1]
            continue
        step = root.joinpath(*here, part)
        if step.is_symlink():
            depth -= 1
            if depth == 0:
                return False
            target = str(step.readlink())
            if target.startswith("/"):
                here = []
            pending = target.split("/") + pending
        else:
            here.append(part)
    return root.joinpath(*here).exists()


def _url(mirror: str, seed: Seed, path: str) -> str:
    return f"{mirror.rstrip('/')}/releases/{seed.arch}/autobuilds/{path}"
