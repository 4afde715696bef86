"""Stages for seeds: the lab's, each with more entries in its package database."""

from __future__ import annotations

import hashlib
import io
import mmap
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from lab.upstream import Upstream

_BLOCK = 512
_DATABASE = "./var/db/pkg"


class Stages:
    """The lab's stage as a plain archive, from which others are packed in seconds."""

    def __init__(self, lab: Path, folder: Path) -> None:
        self._folder, self._plain = folder, folder / "stage.tar"
        upstream = Upstream(lab)
        [archive] = upstream.autobuilds.glob(f"*/{upstream.facts().stage}")
        with self._plain.open("wb") as target:
            subprocess.run(["xz", "-T0", "-dc", archive], stdout=target, check=True)
        self._portage = upstream.facts().portage
        self._cut_end()

    def pack(self, name: str, packages: Mapping[str, str], portage: str = "") -> dict[str, str]:
        """Pack a stage; returns the keys of its table in config.toml.

        `packages` are the CONTENTS of the packages that its database has besides, by CPV. `portage`
        is another version, of as many characters, that its Portage says it is.
        """
        if portage:
            self._replace_version(self._portage.encode(), portage.encode())
        target = self._folder / f"{name}.tar.zst"
        with target.open("wb") as stream:
            packer = ["zstd", "-q", "-1", "-T0", "-c"]
            subprocess.run([*packer, self._plain], stdout=stream, check=True)
            stream.flush()
            subprocess.run(packer, input=_database(packages), stdout=stream, check=True)
        with target.open("rb") as stream:
            return {
                "file": str(target),
                "sha512": hashlib.file_digest(stream, "sha512").hexdigest(),
            }

    def _cut_end(self) -> None:
        """Cut the zeros that end the archive, so that others can follow."""
        size = self._plain.stat().st_size
        with self._plain.open("r+b") as stream:
            stream.seek(max(0, size - (1 << 20)))
            tail = stream.read()
            blocks = -(-len(tail.rstrip(b"\0")) // _BLOCK)
            stream.truncate(size - len(tail) + blocks * _BLOCK)

    def _replace_version(self, old: bytes, new: bytes) -> None:
        """Replace a string in sources, and in bytecode, which Python takes for the source's.

        The same text in a file name stays.
        """
        assert len(old) == len(new)
        with self._plain.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as content:
            position = -1
            while (position := content.find(old, position + 1)) >= 0:
                if content[position - 1] in (ord('"'), len(old)):  # in bytecode its length
                    content[position : position + len(new)] = new


def _database(packages: Mapping[str, str]) -> bytes:
    """An archive of database entries, as a stage has them."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for cpv, contents in packages.items():
            category, pf = cpv.split("/")
            files = {
                "CATEGORY": category,
                "PF": pf,
                "SLOT": "0",
                "EAPI": "8",
                "KEYWORDS": "amd64",
                "repository": "gentoo",
                "COUNTER": "1",
                "USE": "",
                "IUSE": "",
                "CONTENTS": contents,
            }
            for name, text in files.items():
                entry = tarfile.TarInfo(f"{_DATABASE}/{cpv}/{name}")
                data = f"{text}\n".encode()
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
