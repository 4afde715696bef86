"""Content of a package without the parts that differ between builds, to compare two builds."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

# When it was built, and the number of the build.
_OF_THE_BUILD = {"metadata/BUILD_TIME", "metadata/BUILD_ID"}
_TIMES = {"mtime", "atime", "ctime"}


def contents(path: Path) -> dict[str, Any]:
    """Each member of image and metadata: kind, mode, owner, link and digest; not its time."""
    members: dict[str, Any] = {}
    with tarfile.open(path, "r:") as container:
        for member in container:
            name = member.name.rpartition("/")[2]
            if name in ("metadata.tar.zst", "image.tar.zst"):
                stream = container.extractfile(member)
                assert stream is not None
                members |= dict(_members(stream.read()))
    assert "metadata/PF" in members
    assert any(name.startswith("image") for name in members)
    return members


def differences(one: Path, other: Path) -> list[str]:
    """The members that two packages do not have in common, each with how it differs."""
    left, right = contents(one), contents(other)
    return [
        f"{name}: {left.get(name)} {right.get(name)}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name) and name not in _OF_THE_BUILD
    ]


def _members(packed: bytes) -> Iterator[tuple[str, Any]]:
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed), read_across_frames=True)
    with tarfile.open(fileobj=io.BytesIO(reader.read()), mode="r:") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(stream.read()).hexdigest() if stream else ""
            more = {key: value for key, value in member.pax_headers.items() if key not in _TIMES}
            yield (
                member.name,
                (
                    member.type,
                    oct(member.mode),
                    member.uid,
                    member.gid,
                    member.linkname,
                    more,
                    digest,
                ),
            )
