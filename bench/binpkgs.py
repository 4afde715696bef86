"""Generated sets of binary packages: real GPKGs of a few kilobytes, as a chroot's Portage writes.

All are in category app-misc. The content is random, so that it does not compress, and the same for
the same number and build.
"""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zstandard

from tasks import domain
from tasks.records import BinpkgsRecord

BUILD_TIME = 1_795_000_000
_DEPEND = " ".join(f">=dev-libs/lib{n}-1.{n}:0/{n}=" for n in range(8))


@dataclass(frozen=True)
class Package:
    """One package of a set; each rebuild of it has another `build`."""

    number: int
    build: int = 1

    @property
    def name(self) -> str:
        return f"generated-{self.number}"

    @property
    def cpv(self) -> str:
        return f"app-misc/{self.name}-1.2.3"

    @property
    def path(self) -> str:
        return f"app-misc/{self.name}/{self.name}-1.2.3-{self.build}.gpkg.tar"

    @property
    def values(self) -> dict[str, str]:
        return {
            "BUILD_ID": str(self.build),
            "BUILD_TIME": str(BUILD_TIME + self.number),
            "CATEGORY": "app-misc",
            "CHOST": "x86_64-pc-linux-gnu",
            "DEFINED_PHASES": "compile",
            "DESCRIPTION": f"Generated package {self.number}",
            "EAPI": "8",
            "IUSE": "nls static",
            "KEYWORDS": "amd64",
            "LICENSE": "GPL-2",
            "PF": f"{self.name}-1.2.3",
            "RDEPEND": _DEPEND,
            "SLOT": "0",
            "USE": "nls amd64 elibc_glibc kernel_linux",
            "repository": "gentoo",
            "SIZE": "1",
        }


def write(folder: Path, package: Package, size: int) -> None:
    """Write a package's file below a folder; its image has `size` bytes."""
    dice = random.Random(f"{package.number}/{package.build}")  # noqa: S311 - bytes, not secrets
    pack = zstandard.ZstdCompressor(level=1).compress
    top = Path(package.path).name.removesuffix(".gpkg.tar")
    values = {f"metadata/{key}": f"{value}\n".encode() for key, value in package.values.items()}
    members = {
        "gpkg-1": b"",
        "metadata.tar.zst": pack(_tar(values)),
        "image.tar.zst": pack(_tar({"image/usr/share/x": dice.randbytes(size)})),
    }
    lines = [
        f"DATA {name} {len(data)} BLAKE2B {hashlib.blake2b(data).hexdigest()} "
        f"SHA512 {hashlib.sha512(data).hexdigest()}\n"
        for name, data in members.items()
    ]
    members["Manifest"] = "".join(lines).encode()
    path = folder / package.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_tar({f"{top}/{name}": data for name, data in members.items()}))


def index(packages: Iterable[Package]) -> str:
    """Return the index of a set, as the chroot's Portage writes it."""
    index_keys = {"DESCRIPTION": "DESC", "repository": "REPO"}
    head = "ARCH: amd64\nPROFILE: default/linux/amd64/lab\nTIMESTAMP: 1\nVERSION: 0\n\n"
    return head + "".join(
        "".join(
            f"{index_keys.get(key, key)}: {value}\n"
            for key, value in sorted({**p.values, "CPV": p.cpv, "PATH": p.path}.items())
            if key not in ("CATEGORY", "PF")
        )
        + "\n"
        for p in packages
    )


def record(packages: Iterable[Package], digests: dict[str, str], identity: str) -> BinpkgsRecord:
    """Return the record of a set that binpkgs:NAME would leave; `digests` are SHA-512 by path."""
    domain_packages = tuple(
        domain.Package(
            cpv=p.cpv,
            build_id=p.build,
            slot="0",
            use="nls",
            repo="gentoo",
            path=p.path,
            size=1,
            sha512=digests[p.path],
        )
        for p in packages
    )
    return BinpkgsRecord(identity, domain_packages)


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()
