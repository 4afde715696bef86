"""A generated ebuild repository of the real one's shape and size, as unsigned archives.

At scale 1 about 145,000 files: 34,000 ebuilds of 19,000 packages in 170 categories, as many
md5-cache entries, Manifests, metadata.xml, patches, profiles. The same seed gives the same
bytes. The next day bumps some 200 packages, so that about 0.7 % of the files change.
"""

from __future__ import annotations

import functools
import hashlib
import io
import random
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

_LETTERS = random.Random(0)  # noqa: S311 - generated words, not secrets
_WORDS = tuple(
    "".join(_LETTERS.choices("etaoinshrdlucmfgpbvk", k=_LETTERS.randint(3, 9)))
    for _ in range(4_000)
)
ONE_BLOCK = ("xz", "-T1", "-6", "-c")  # as the mirrors have it
QUICK_BLOCK = ("xz", "-T2", "-0", "-c")
_KEYWORDS = "~alpha amd64 arm arm64 ~hppa ~loong ~m68k ~mips ppc ppc64 ~riscv ~s390 sparc x86"

_ECLASSES = "\t".join(
    f"{word}\t{hashlib.md5(word.encode(), usedforsecurity=False).hexdigest()}"
    for word in _WORDS[:9]
)


@dataclass(frozen=True)
class Package:
    """A package with an ebuild per version."""

    category: str
    name: str
    versions: tuple[int, ...]
    patches: int

    @property
    def folder(self) -> str:
        return f"{self.category}/{self.name}"


def packages(scale: float = 1.0) -> list[Package]:
    """Generate the packages of the first day."""
    dice = random.Random(1)  # noqa: S311 - shape, not secrecy
    tree = []
    for number in range(int(19_000 * scale)):
        count = dice.choices((1, 2, 3, 4, 6), (52, 27, 12, 6, 3))[0]
        category = f"{dice.choice(_WORDS[:14])}-{dice.choice(_WORDS[14:27])}"
        patches = dice.choices((0, 1, 2, 5, 9), (56, 20, 10, 8, 6))[0]
        name = f"{dice.choice(_WORDS)}-{number}"
        tree.append(Package(category, name, tuple(range(1, count + 1)), patches))
    return sorted(tree, key=lambda p: p.folder)


def next_day(before: list[Package], seed: int = 2, share: float = 0.0135) -> list[Package]:
    """Bump a `share` of the packages: each gets a new version, half of them lose the oldest."""
    dice = random.Random(seed)  # noqa: S311
    after = []
    for each in before:
        versions = each.versions
        if dice.random() < share:
            first = dice.random() < 0.5
            versions = (*versions[first:], versions[-1] + 1)
        after.append(Package(each.category, each.name, versions, each.patches))
    return after


def files(tree: list[Package], time: datetime, scale: float = 1.0) -> Iterator[tuple[str, bytes]]:
    """Yield every file of the repository as path and content, grouped by directory as tar does."""
    for each in tree:
        yield from _package(each)
    for each in tree:
        for version in each.versions:
            yield f"metadata/md5-cache/{each.folder}-{version}.0", _cache(each, version)
    for number in range(int(3_500 * scale)):
        yield f"metadata/glsa/glsa-{number}.xml", _text(f"glsa{number}", 2_600)
    for number in range(int(8_000 * scale)):
        yield f"profiles/arch/{number % 90}/{number}/package.use", _text(f"profile{number}", 300)
    for number in range(int(1_300 * scale)):
        yield f"licenses/LICENSE-{number}", _text(f"license{number}", 9_000)
        if number % 5 == 0:
            yield f"eclass/class-{number}.eclass", _text(f"eclass{number}", 8_000)
    yield "profiles/repo_name", b"gentoo\n"
    yield "metadata/layout.conf", b"masters =\nthin-manifests = true\n"
    yield "metadata/timestamp.x", f"{time.timestamp():.0f} {time:%a, %d %b %Y %T}\n".encode()


@functools.cache
def _package(each: Package) -> list[tuple[str, bytes]]:
    return list(_contents(each))


def _contents(each: Package) -> Iterator[tuple[str, bytes]]:
    lines = []
    for version in each.versions:
        file = f"{each.name}-{version}.0.tar.xz"
        lines.append(
            f"DIST {file} {version * 7919 % 9_000_000} BLAKE2B "
            f"{hashlib.blake2b(file.encode()).hexdigest()} SHA512 "
            f"{hashlib.sha512(file.encode()).hexdigest()}"
        )
    yield f"{each.folder}/Manifest", ("\n".join(lines) + "\n").encode()
    for version in each.versions:
        yield f"{each.folder}/{each.name}-{version}.0.ebuild", _ebuild(each, version)
    for number in range(each.patches):
        yield f"{each.folder}/files/fix-{number}.patch", _text(f"{each.folder}{number}", 1_900)
    yield (
        f"{each.folder}/metadata.xml",
        (
            '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE pkgmetadata SYSTEM '
            '"https://www.gentoo.org/dtd/metadata.dtd">\n<pkgmetadata>\n\t<maintainer>'
            f"\n\t\t<email>{each.category}@gentoo.org</email>\n\t\t<name>{each.category}</name>\n"
            f"\t</maintainer>\n\t<upstream>\n\t\t<remote-id>{each.folder}</remote-id>\n"
            "\t</upstream>\n</pkgmetadata>\n"
        ).encode(),
    )


def _ebuild(each: Package, version: int) -> bytes:
    body = _text(each.folder, 900)  # versions of a package are alike
    return (
        b"# Copyright 1999-2026 Gentoo Authors\n# Distributed under the terms of the GNU General "
        b"Public License v2\n\nEAPI=8\n\n"
        + body
        + f'\nSLOT="0/{version}"\nKEYWORDS="{_KEYWORDS}"\n\nPATCHES=( "fix-{version}" )\n'.encode()
        + body[: 300 + version * 17]
    )


@functools.cache
def _cache(each: Package, version: int) -> bytes:
    digest = hashlib.md5(_ebuild(each, version), usedforsecurity=False).hexdigest()
    return (
        "DEFINED_PHASES=compile configure install prepare test\n"
        f"DESCRIPTION={_text(each.name, 60).decode()}\nEAPI=8\nHOMEPAGE=https://{each.name}.example/\n"
        f"IUSE=doc test\nKEYWORDS={_KEYWORDS}\nLICENSE=GPL-2\nSLOT=0/{version}\n"
        f"SRC_URI=https://{each.name}.example/{each.name}-{version}.0.tar.xz\n"
        f"DEPEND={_text(each.folder, 350).decode()}RDEPEND={_text(each.folder, 350).decode()}"
        f"_eclasses_={_ECLASSES}\n_md5_={digest}\n"
    ).encode()


@functools.cache
def _text(seed: str, size: int) -> bytes:
    dice = random.Random(seed)  # noqa: S311
    text = " ".join(dice.choices(_WORDS, k=size // 6))
    return (text[:size] + f" {seed}\n").encode()


def clear_caches() -> None:
    """Free the memory of generated files."""
    for each in (_package, _cache, _text):
        each.cache_clear()


def file_name(day: date) -> str:
    """Return the name of a day's archive, as the mirrors have it."""
    return f"gentoo-{day:%Y%m%d}.tar.xz"


def write(
    tree: list[Package],
    day: date,
    folder: Path,
    scale: float = 1.0,
    compress: tuple[str, ...] = ONE_BLOCK,
) -> Path:
    """Write the archive of a tree to `folder`, packed by `compress`."""
    target = folder / file_name(day)
    time = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, minutes=45)
    with target.open("wb") as out:
        packer = subprocess.Popen(compress, stdin=subprocess.PIPE, stdout=out)
        assert packer.stdin is not None  # noqa: S101
        with tarfile.open(fileobj=packer.stdin, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            _add(tar, f"gentoo-{day:%Y%m%d}", files(tree, time, scale), int(time.timestamp()))
        packer.stdin.close()
        if packer.wait() != 0:
            raise subprocess.CalledProcessError(packer.returncode, compress)
    return target


def _add(tar: tarfile.TarFile, top: str, content: Iterator[tuple[str, bytes]], time: int) -> None:
    folders: set[str] = set()
    for path, data in content:
        parts = [top, *path.split("/")[:-1]]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in folders:
                folders.add(folder)
                tar.addfile(_entry(folder, time, 0, tarfile.DIRTYPE, 0o755))
        tar.addfile(
            _entry(f"{top}/{path}", time, len(data), tarfile.REGTYPE, 0o644), io.BytesIO(data)
        )
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header


def _entry(name: str, time: int, size: int, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.type, entry.mode = size, time, kind, mode
    entry.uid = entry.gid = 250
    entry.uname = entry.gname = "portage"
    return entry
