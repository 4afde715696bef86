"""The release manifest of a view: what it is, from which lock, when, until when; `release.json`.

Portage does not read it: it is for auditors, and for a client that checks the index before an
update. Its detached signature covers the digests of all that lies beside it, so it covers the
index, and by the index's SHA512 each package. One key a line, the manifest's own with one blank
before them, so that sed(1) can read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.system.files import digests, write_atomic

NAME = "release.json"
SIGNATURE = ".asc"  # of a detached signature, armored, beside the file that it is over
FORMAT = 1
_DAY = 86400


def write(
    folder: Path, files: Iterable[str], told: Mapping[str, Any], *, created: int, valid_days: int
) -> None:
    """Write a view's manifest over `files`, names in `folder`.

    `created` is in epoch seconds. `told` is plain data: `name` (the chroot's), `group`,
    `generation`, `timestamp` (the index's), `packages` (how many), `set` (its id), `lock` (its
    SHA-256, and what it pins: tree, overlays, seed), `config` (the SHA-256 of config.toml).
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
    """The manifest of a view of ours."""
    loaded: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
    return loaded


def renewal(created: int, valid_days: int) -> int:
    """When (epoch seconds) a manifest is to be made anew: half of its time is gone."""
    return created + valid_days * _DAY // 2


def _file(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, **digests(path, "sha256", "sha512")}
