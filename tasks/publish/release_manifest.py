"""The release manifest of a view, `release.json`: its content, its sources and its validity.

Portage does not read it. It serves auditors, and clients that check the index before an update.
Its detached signature covers the digests of all files beside it, so it covers the index and,
through the index's SHA512, each package. It has one key a line, and one blank before its own
keys, so that sed(1) can read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.system.files import digests, write_atomic

NAME = "release.json"
SIGNATURE = ".asc"  # suffix of a detached, armored signature
FORMAT = 1
_DAY = 86400


def write(
    folder: Path, files: Iterable[str], told: Mapping[str, Any], *, created: int, valid_days: int
) -> None:
    """Write a view's manifest over `files`, names in `folder`.

    `created` is in epoch seconds. `told` is plain data: `name` (of the chroot), `group`,
    `generation`, `timestamp` (of the index), `packages` (their number), `set` (its id), `lock`
    (its SHA-256, and the pins of tree, overlays and seed), `config` (the SHA-256 of config.toml).
    """
    manifest = {
        **told,
        "format": FORMAT,
        "created": created,
        "valid_until": created + valid_days * _DAY,
        "files": {name: _file(folder / name) for name in files},
    }
    write_atomic(folder / NAME, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def read(folder: Path) -> dict[str, Any]:
    """Read the manifest of a published view."""
    loaded: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
    return loaded


def renewal(created: int, valid_days: int) -> int:
    """The time (epoch seconds) to renew a manifest: the middle of its validity."""
    return created + valid_days * _DAY // 2


def _file(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, **digests(path, "sha256", "sha512")}
