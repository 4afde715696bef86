"""The paths that packages install, kept in a folder by the SHA-512 of the package's file.

So an image is read once. Nothing is synced: a list that is damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from tasks.errors import NotTrusted
from tasks.portage import gpkg
from tasks.system.files import private_folder, sha512

_SHA512 = re.compile(r"[0-9a-f]{128}")


def paths(folder: Path, package: Path, digest: str) -> list[str]:
    """The paths that a package's image installs; `digest` is its SHA-512 by the index.

    Raises NotTrusted for a file that has another one, or that cannot be read.
    """
    if not _SHA512.fullmatch(digest):
        raise NotTrusted("package-differs", file=package)
    place = folder / digest
    listed = _read(place)
    if listed is not None:
        return listed
    if sha512(package) != digest:
        raise NotTrusted("package-differs", file=package)
    listed = sorted(gpkg.image_paths(package))
    private_folder(folder)
    place.write_bytes(_with_checksum(json.dumps(listed).encode()))
    return listed


def _read(path: Path) -> list[str] | None:
    """A list of paths; None if it is missing or damaged."""
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    text = whole.partition(b"\n")[2]
    if whole != _with_checksum(text):
        return None
    listed: list[str] = json.loads(text)
    return listed


def _with_checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text
