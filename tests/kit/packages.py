"""Small handmade packages in the format of GLEP 78."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from tasks.portage.gpkg import metadata, parse

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


@dataclass(frozen=True)
class ImageFile:
    """An entry of an image, by its path on a client; `kind` is one of tarfile's types."""

    path: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    owner: str = "root"
    group: str = "root"
    target: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    mtime: float = 0

    def header(self) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(f"image{self.path}".rstrip("/"))
        entry.type, entry.mode, entry.mtime = self.kind, self.mode, self.mtime
        entry.uid, entry.gid, entry.uname, entry.gname = self.uid, self.gid, self.owner, self.group
        hard = self.kind == tarfile.LNKTYPE
        entry.linkname = f"image{self.target}" if hard else self.target
        entry.size, entry.pax_headers = len(self.data), dict(self.attributes)
        return entry


def image(files: Iterable[ImageFile], form: int = tarfile.PAX_FORMAT) -> bytes:
    """The uncompressed archive of an image."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=form) as archive:
        for each in files:
            archive.addfile(each.header(), io.BytesIO(each.data))
    return out.getvalue()


def built_package(
    path: Path,
    files: Iterable[ImageFile] | bytes = (ImageFile("/usr/bin/hello", b"#!/bin/sh\n"),),
    values: Mapping[str, str] = VALUES,
    *,
    environment: bytes = b"",
    suffix: str = ".zst",
) -> Path:
    """Write a package with an image of these files (or of this archive), as Portage would."""
    inner = [(f"metadata/{key}", f"{value}\n".encode()) for key, value in values.items()]
    if environment:
        inner.append(("metadata/environment.bz2", bz2.compress(environment)))
    archive = files if isinstance(files, bytes) else image(files)
    pack = PACKERS[suffix]
    members = [
        ("gpkg-1", b""),
        (f"metadata.tar{suffix}", pack(tar(inner))),
        (f"image.tar{suffix}", pack(archive)),
    ]
    return gpkg(path, members)


def index_stanza(path: Path) -> str:
    """The stanza that Portage writes for a package into its index."""
    values = metadata(path)
    name = parse(values["CATEGORY"], values["PF"], values["BUILD_ID"])
    copied = {key: value for key, value in values.items() if key not in ("CATEGORY", "PF")}
    keys = {
        **copied,
        "CPV": name.cpv,
        "PATH": name.path,
        "REPO": values["repository"],
        "SIZE": str(path.stat().st_size),
        "SLOT": "" if values["SLOT"] == "0" else values["SLOT"],
    }
    return "".join(f"{key}: {value}\n" for key, value in sorted(keys.items()) if value) + "\n"


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
