"""The `Packages` index of a binhost, as portage.dbapi.bintree reads it.

It has one header, then a stanza per package. The chroot's Portage wrote the values (dependencies
evaluated for the USE flags, the profile's header); names, paths, sizes and hashes come from
binmill, as clients do not verify an entry without SIZE. An index is read and written stanza by
stanza: with 20,000 packages it has tens of megabytes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.domain import Package
from tasks.errors import BinmillError, NotTrusted

INDEX = "Packages"  # its name, in a binhost and in PKGDIR
Stanza = dict[str, str]
# Keys of the header that are copied (bintree._pkgindex_header_keys, and the profile's variables).
# Not URI and GENTOO_MIRRORS, which belong to this site, nor TTL and DOWNLOAD_TIMESTAMP, which could
# keep clients from ever asking again.
_HEADER = re.compile(
    r"ACCEPT_[A-Z]+|ARCH|CBUILD|CHOST|CONFIG_PROTECT(_MASK)?|ELIBC|FEATURES|INSTALL_MASK"
    r"|IUSE_IMPLICIT|KERNEL|PROFILE|USE|USE_EXPAND[A-Z_]*|VERSION"
)
# Portage reads its own copy of an index with universal newlines: two carriage returns in a value
# would begin the stanza of another package.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# The client's own binrepos.conf decides where it fetches, and by which command.
_NOT_OURS = frozenset({"BASE_URI", "PKGINDEX_URI", "FETCHCOMMAND", "RESUMECOMMAND"})


@dataclass(frozen=True)
class Sums:
    """A published file: bytes, digests in hex, and its modification time (epoch seconds).

    Portage verifies SIZE, MD5 and SHA1 (bintree._pkgindex_hashes) and ignores SHA512, with which
    `check` and fsck compare the signed index and the files.
    """

    size: int
    md5: str
    sha1: str
    sha512: str
    mtime: int


def parse(text: str) -> tuple[Stanza, list[Stanza]]:
    """The header and the stanzas of an index."""
    blocks = list(_blocks(text.split("\n")))
    return (blocks[0], blocks[1:]) if blocks else ({}, [])


def read(path: Path) -> Iterator[Stanza]:
    """The header of an index file, then one stanza after the other."""
    # newline="\n": a carriage return within a description ends no line
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        yield from _blocks(line.removesuffix("\n") for line in lines)


def _blocks(lines: Iterable[str]) -> Iterator[Stanza]:
    """Split lines into blocks; the lines end with a newline only, unlike those of str.splitlines,
    which also ends one at a U+2028 within a description."""
    block: Stanza = {}
    started = False
    for line in lines:
        if line:
            key, colon, value = line.partition(": ")
            started = True
            if colon:  # keys, and many values, are the same in every stanza
                block[sys.intern(key)] = sys.intern(value)
        elif started:
            yield block
            block, started = {}, False
    if started:
        yield block


def render(block: Mapping[str, str]) -> str:
    """The text of a header or stanza: keys sorted, an empty line at the end."""
    return "".join(f"{key}: {block[key]}\n" for key in sorted(block) if block[key]) + "\n"


def only_stanza(raw: bytes) -> str:
    """The stanza of an index with one package, as text; raises NotTrusted for any other.

    It gets what it inherits from its header (bintree._pkgindex_inherited_keys).
    """
    header, stanzas = parse(raw.decode("utf-8", "replace"))
    if len(stanzas) != 1:
        raise NotTrusted("index-not-of-one-package", stanzas=len(stanzas))
    inherited = {key: header[key] for key in ("CHOST", "repository") if header.get(key)}
    return render({**inherited, **stanzas[0]}).rstrip("\n") + "\n"


def of_set(stanzas: Iterable[Stanza], packages: Sequence[Package]) -> dict[str, Stanza]:
    """The stanza of each package of a set, by path, from the index that the build's Portage wrote.

    Raises BinmillError for a package that has none, NotTrusted for one that has two.
    """
    names = {package.path: package for package in packages}
    by_path: dict[str, Stanza] = {}
    for stanza in stanzas:
        path = stanza.get("PATH", "")
        package = names.get(path)
        if package is None:
            continue
        if path in by_path:
            raise NotTrusted("index-duplicate", path=path)
        by_path[path] = {
            **{
                key: _CONTROL.sub(" ", value)
                for key, value in stanza.items()
                if key not in _NOT_OURS and not _CONTROL.search(key)
            },
            "CPV": package.cpv,
            "BUILD_ID": str(package.build_id),
        }
    for path, package in names.items():
        if path not in by_path:
            raise BinmillError("index-lacks-package", package=package.cpv)
    return by_path


def complete(stanza: Stanza, sums: Sums) -> Stanza:
    """Add the sums of the signed file, which differ from those that the build's Portage wrote."""
    return {
        **stanza,
        "SIZE": str(sums.size),
        "MD5": sums.md5,
        "SHA1": sums.sha1,
        "SHA512": sums.sha512,
        "MTIME": str(sums.mtime),
    }


def header(
    original: Mapping[str, str], count: int, timestamp: int, revisions: Mapping[str, str]
) -> Stanza:
    """The header of an index of `count` packages, from that of the build's Portage.

    `timestamp` (epoch seconds) must grow from one generation to the next, or clients keep their old
    index; `revisions` has the commit of each repository.
    """
    repositories = ", ".join(f'"{name}": "{commit}"' for name, commit in sorted(revisions.items()))
    return {
        **{k: _CONTROL.sub(" ", v) for k, v in original.items() if _HEADER.fullmatch(k)},
        "PACKAGES": str(count),
        "TIMESTAMP": str(timestamp),
        "REPO_REVISIONS": "{" + repositories + "}",
    }
