"""The `Packages` index of a binhost, as portage.dbapi.bintree reads it.

One header, then a stanza per package. The chroot's Portage wrote the values (dependencies
evaluated for the USE flags, the profile's header); names, paths, sizes and hashes are ours: an
entry without SIZE would be taken unverified. An index is read and written stanza by stanza: of
20,000 packages it has tens of megabytes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from tasks.errors import BinmillError, NotTrusted

INDEX = "Packages"  # its name, in a binhost and in PKGDIR
Stanza = dict[str, str]
# What a header may say (bintree._pkgindex_header_keys, and the profile's variables). Not URI and
# GENTOO_MIRRORS, which are the factory's own, nor TTL and DOWNLOAD_TIMESTAMP, by which clients
# would never ask again.
_HEADER = re.compile(
    r"ACCEPT_[A-Z]+|ARCH|CBUILD|CHOST|CONFIG_PROTECT(_MASK)?|ELIBC|FEATURES|INSTALL_MASK"
    r"|IUSE_IMPLICIT|KERNEL|PROFILE|USE|USE_EXPAND[A-Z_]*|VERSION"
)
# Where a client fetches, and by which command, is for its own binrepos.conf to say.
_NOT_OURS = frozenset({"BASE_URI", "PKGINDEX_URI", "FETCHCOMMAND", "RESUMECOMMAND"})


class Sums(TypedDict):
    """What a published file is: bytes, digests in hex, and its time of change (epoch seconds).

    Portage holds a package against SIZE, MD5 and SHA1 (bintree._pkgindex_hashes), and passes over
    SHA512, which is for those who hold the signed index against the files.
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
    # newline="\n": a carriage return inside of a description ends no line
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        yield from _blocks(line.removesuffix("\n") for line in lines)


def _blocks(lines: Iterable[str]) -> Iterator[Stanza]:
    """Lines end with a newline and nothing else: str.splitlines would begin one at a U+2028
    inside of a description."""
    block: Stanza = {}
    begun = False
    for line in lines:
        if line:
            key, colon, value = line.partition(": ")
            begun = True
            if colon:  # keys, and many values, are the same in every stanza
                block[sys.intern(key)] = sys.intern(value)
        elif begun:
            yield block
            block, begun = {}, False
    if begun:
        yield block


def render(block: Mapping[str, str]) -> str:
    """A header's or a stanza's text, its keys sorted, with the empty line that ends it."""
    return "".join(f"{key}: {block[key]}\n" for key in sorted(block) if block[key]) + "\n"


def of_set(stanzas: Iterable[Stanza], packages: Sequence[Mapping[str, Any]]) -> dict[str, Stanza]:
    """The stanza of each package of a set by its path, of an index that the build's Portage wrote.

    Raises BinmillError for a package that has none, NotTrusted for one that has two.
    """
    names = {package["path"]: package for package in packages}
    found: dict[str, Stanza] = {}
    for stanza in stanzas:
        path = stanza.get("PATH", "")
        package = names.get(path)
        if package is None:
            continue
        if path in found:
            raise NotTrusted(f"the index of the build has {path} twice")
        found[path] = {
            **{key: value for key, value in stanza.items() if key not in _NOT_OURS},
            "CPV": package["cpv"],
            "BUILD_ID": str(package["build_id"]),
        }
    for path, package in names.items():
        if path not in found:
            raise BinmillError(f"{package['cpv']} is missing in the index of its own build")
    return found


def complete(stanza: Stanza, sums: Sums) -> Stanza:
    """A stanza with what its file is: signed, so not what the build's Portage saw."""
    return {
        **stanza,
        "SIZE": str(sums["size"]),
        "MD5": sums["md5"],
        "SHA1": sums["sha1"],
        "SHA512": sums["sha512"],
        "MTIME": str(sums["mtime"]),
    }


def header(
    written: Mapping[str, str], count: int, timestamp: int, revisions: Mapping[str, str]
) -> Stanza:
    """The header of an index of `count` packages, from that of the build's Portage.

    `timestamp` (epoch seconds) must grow from one generation to the next or clients keep what
    they have; `revisions` names the commit of each repository.
    """
    repositories = ", ".join(f'"{name}": "{commit}"' for name, commit in sorted(revisions.items()))
    return {
        **{key: value for key, value in written.items() if _HEADER.fullmatch(key)},
        "PACKAGES": str(count),
        "TIMESTAMP": str(timestamp),
        "REPO_REVISIONS": "{" + repositories + "}",
    }
