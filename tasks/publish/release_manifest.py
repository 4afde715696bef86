"""The release manifest of a view, `release.json`: its content, its sources and its validity.

Portage does not read it. It serves auditors, and clients that check the index before an update.
Its detached signature covers the digests of all files beside it, so it covers the index and,
through the index's SHA512, each package. It has one key a line, and one blank before its own
keys, so that sed(1) can read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.publish.generation import read_object
from tasks.publish.pins import Pins
from tasks.system.files import digests, write_atomic

NAME = "release.json"
SIGNATURE = ".asc"  # suffix of a detached, armored signature
FORMAT = 2
_DAY = 86400


@dataclass(frozen=True)
class Release:
    """The part of a manifest that all views share, and that later generations repeat.

    `name` is the chroot's, `set` the id of its package set, `lock` its pins, `config` a digest of
    its effective settings. In format 1, of version 0.1, `config` was the SHA-256 of config.toml,
    and there was one of config.lock, `lock_sha256`.
    """

    name: str
    set: str
    lock: Pins
    config: str
    lock_sha256: str = ""
    format: int = FORMAT


@dataclass(frozen=True)
class Manifest:
    """The manifest of one view; `timestamp` is that of the index, times are in epoch seconds."""

    release: Release
    group: str
    generation: int
    timestamp: int
    packages: int
    created: int
    valid_until: int


def valid_until(created: int, valid_days: int) -> int:
    """The end of a manifest's validity, in epoch seconds."""
    return created + valid_days * _DAY


def renewal(created: int, valid_days: int) -> int:
    """The time (epoch seconds) to renew a manifest: the middle of its validity."""
    return created + valid_days * _DAY // 2


def write(folder: Path, manifest: Manifest, files: Iterable[str]) -> None:
    """Write a view's manifest over `files`, names in `folder`."""
    release = manifest.release
    digest = {"sha256": release.lock_sha256} if release.lock_sha256 else {}
    plain = {
        "name": release.name,
        "set": release.set,
        "lock": {**release.lock.plain(), **digest},
        "config": release.config,
        "format": release.format,
        "group": manifest.group,
        "generation": manifest.generation,
        "timestamp": manifest.timestamp,
        "packages": manifest.packages,
        "created": manifest.created,
        "valid_until": manifest.valid_until,
        "files": {name: _file(folder / name) for name in files},
    }
    write_atomic(folder / NAME, json.dumps(plain, indent=1, sort_keys=True) + "\n")


def read_release(folder: Path) -> Release:
    """Read the release of a published view, in either format; raises BinmillError."""
    path = folder / NAME
    plain = read_object(path)
    try:
        return Release(
            name=plain["name"],
            set=plain["set"],
            lock=Pins.parse(plain["lock"]),
            config=plain["config"],
            lock_sha256=plain["lock"].get("sha256", ""),
            format=plain["format"],
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BinmillError("binhost-file-unreadable", path=path, cause=repr(error)) from error


def _file(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, **digests(path, "sha256", "sha512")}
