"""The `Packages` index of a binhost, as portage.dbapi.bintree reads it.

One header, then a stanza per package. The chroot's Portage wrote the values (dependencies
evaluated for the USE flags, the profile's header); names, paths, sizes and hashes are ours: an
entry without SIZE would be taken unverified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.system.files import digests

Stanza = dict[str, str]


def parse(text: str) -> tuple[Stanza, list[Stanza]]:
    """The header and the stanzas of an index.

    Lines end with a newline and nothing else: str.splitlines would begin one at a U+2028 inside
    of a description.
    """
    blocks = [b for b in text.split("\n\n") if b.strip()]
    parsed = [
        dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        for block in blocks
    ]  # fmt: skip
    return (parsed[0], parsed[1:]) if parsed else ({}, [])


def render(header: Mapping[str, str], stanzas: Sequence[Mapping[str, str]]) -> str:
    """The index's text, keys and packages sorted."""
    ordered = sorted(stanzas, key=lambda s: (s["CPV"], int(s["BUILD_ID"])))
    return "".join(
        "".join(f"{key}: {block[key]}\n" for key in sorted(block) if block[key]) + "\n"
        for block in (header, *ordered)
    )


def make(
    source: str,
    packages: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    timestamp: int,
    revisions: Mapping[str, str],
) -> str:
    """The index of exactly `packages`, whose files lie below `folder`.

    `source` is the index that the build's Portage wrote, `timestamp` (epoch seconds) must grow
    from one generation to the next or clients keep what they have; `revisions` names the commit
    of each repository. Raises BinmillError for a package that `source` does not have.
    """
    header, written = parse(source)
    by_path = {stanza.get("PATH", ""): stanza for stanza in written}
    stanzas = []
    for package in packages:
        stanza = by_path.get(package["path"])
        if stanza is None:
            raise BinmillError(f"{package['cpv']} is missing in the index of its own build")
        path = folder / package["path"]
        sums = digests(path, "md5", "sha1")
        stanzas.append({
            **stanza,
            "CPV": package["cpv"],
            "BUILD_ID": str(package["build_id"]),
            "PATH": package["path"],
            "SIZE": str(path.stat().st_size),  # signed, so not the size that was collected
            "MD5": sums["md5"],
            "SHA1": sums["sha1"],
            "MTIME": str(int(path.stat().st_mtime)),
        })  # fmt: skip
    repositories = " ".join(f'"{name}": "{commit}",' for name, commit in sorted(revisions.items()))
    header = {
        **header,
        "PACKAGES": str(len(stanzas)),
        "TIMESTAMP": str(timestamp),
        "REPO_REVISIONS": "{" + repositories.rstrip(",") + "}",
    }
    header.pop("GENTOO_MIRRORS", None)  # the factory's own, no business of a client's
    header.pop("URI", None)
    return render(header, stanzas)
