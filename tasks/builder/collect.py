"""A finished build -> a set: verify and copy the binpkg of every package that was installed.

The chroot is not trusted: names are parsed, files are opened without following links and copied out
of its reach before they are read. An installed package without a binpkg is an error, since clients
would lack it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError, NotTrusted
from tasks.portage import gpkg, vdb
from tasks.portage.index import INDEX
from tasks.system.files import (
    closed_folder,
    copy_plain,
    digests,
    remove_tree,
    sync_folder,
    write_atomic,
)


def collect(entries: Sequence[Path], pkgdir: Path, sets: Path, trash: Path) -> dict[str, Any]:
    """Copy the set below `sets` under a name made of its content; returns what it holds.

    `entries` are the package database's directories of what was installed. The result has
    `set` (its id) and `packages`, sorted: cpv, build_id, slot, use, repo, path, size, sha512.
    """
    scratch = sets / ".incoming"
    closed_folder(trash)  # now: on a full disk it could not be made, and nothing be deleted
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    try:
        packages = sorted((_take(entry, pkgdir, scratch) for entry in entries), key=_by_name)
        copy_plain(pkgdir / INDEX, scratch / INDEX)  # stanzas; publish checks and completes them
        _without_mirrors(scratch / INDEX)
    except BaseException:
        remove_tree(scratch, trash)
        raise
    identity = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()[:32]
    target = sets / identity
    remove_tree(target, trash)
    scratch.rename(target)
    sync_folder(sets)
    return {"set": identity, "packages": packages}


def _without_mirrors(index: Path) -> None:
    """Remove the URLs of mirrors from the index, as they may contain a password.

    Portage writes GENTOO_MIRRORS into the header (bintree._pkgindex_header_keys).
    """
    lines = index.read_bytes().splitlines(keepends=True)
    write_atomic(index, b"".join(x for x in lines if not x.startswith(b"GENTOO_MIRRORS:")))


def _by_name(package: dict[str, Any]) -> tuple[str, int]:
    return package["cpv"], package["build_id"]


def _take(entry: Path, pkgdir: Path, scratch: Path) -> dict[str, Any]:
    name = gpkg.parse(entry.parent.name, entry.name, vdb.value(entry, "BUILD_ID"))
    source, copy = pkgdir / name.path, scratch / name.path
    for folder in (source.parent, source.parent.parent):
        if folder.is_symlink():
            raise NotTrusted("pkgdir-is-link", path=folder, package=name.cpv)
    try:
        copy_plain(source, copy)
    except FileNotFoundError:
        raise BinmillError("package-not-packed", package=name.cpv) from None
    values = gpkg.metadata(copy)
    if (values.get("CATEGORY"), values.get("PF"), values.get("BUILD_ID")) != (
        name.category,
        f"{name.package}-{name.version}",
        str(name.build_id),
    ):
        claimed = f"{values.get('CATEGORY')}/{values.get('PF')}-{values.get('BUILD_ID')}"
        raise NotTrusted("package-misnamed", path=name.path, claimed=claimed)
    return {
        "cpv": name.cpv,
        "build_id": name.build_id,
        "slot": values.get("SLOT", ""),
        "use": " ".join(sorted(values.get("USE", "").split())),
        "repo": values.get("repository", ""),
        "path": name.path,
        "size": copy.stat().st_size,
        **digests(copy, "sha512"),
    }
