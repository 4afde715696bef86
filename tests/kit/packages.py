"""Small handmade packages in the format of GLEP 78."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import zstandard

Member = tuple[str, bytes]

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".zst": zstandard.ZstdCompressor().compress,
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
}
VALUES = {
    "CATEGORY": "app-misc",
    "PF": "hello-2.10-r1",
    "BUILD_ID": "3",
    "SLOT": "0",
    "USE": "nls amd64",
    "repository": "gentoo",
}


def tar(members: Sequence[Member]) -> bytes:
    """An uncompressed tar of plain files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def manifest(members: Sequence[Member]) -> bytes:
    """DATA lines of a container's Manifest."""
    return b"".join(
        f"DATA {name} {len(data)} BLAKE2B {hashlib.blake2b(data).hexdigest()} "
        f"SHA512 {hashlib.sha512(data).hexdigest()}\n".encode()
        for name, data in members
    )


def parts(values: Mapping[str, str] = VALUES, suffix: str = ".zst") -> list[Member]:
    """The members of a package except its Manifest, without their top directory."""
    inner = [(f"metadata/{key}", f"{value}\n".encode()) for key, value in values.items()]
    pack = PACKERS[suffix]
    return [
        ("gpkg-1", b""),
        (f"metadata.tar{suffix}", pack(tar(inner))),
        (f"image.tar{suffix}", pack(tar([("image/usr/bin/hello", b"#!/bin/sh\n")]))),
    ]


def gpkg(
    path: Path,
    members: Sequence[Member] | None = None,
    *,
    listed: bytes | None = None,
    values: Mapping[str, str] = VALUES,
) -> Path:
    """Write a .gpkg.tar with a matching Manifest, or with `listed` as its Manifest."""
    members = parts(values) if members is None else members
    listed = manifest(members) if listed is None else listed
    path.parent.mkdir(parents=True, exist_ok=True)
    every = [*members, ("Manifest", listed)]
    path.write_bytes(tar([(f"top/{name}", data) for name, data in every]))
    return path


def stanza(
    cpv: str, build: int = 1, more: Mapping[str, str] | None = None, **most: str
) -> dict[str, str]:
    """A package of an index; each build has another time."""
    return {
        "CPV": cpv,
        "BUILD_ID": str(build),
        "BUILD_TIME": str(1000 + build),
        "SIZE": "1000",
        "SHA1": f"{cpv} {build}",
        "PATH": f"{cpv}-{build}",
        "REPO": "gentoo",
        "COMMIT": "a" * 40,
        "ETC": "one",
        **(more or {}),
        **most,
    }
