"""A finished build -> a set: verify and copy the binpkg of every package that was installed.

The chroot is not trusted: names are parsed, files are opened without following links and copied out
of its reach before they are read. An installed package without a binpkg is an error, since clients
would lack it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tasks.domain import Package
from tasks.errors import BinmillError, NotTrusted
from tasks.portage import gpkg, vdb
from tasks.portage.index import INDEX
from tasks.system.files import (
    copy_plain,
    private_folder,
    remove_tree,
    sha512,
    sync_folder,
    write_atomic,
)


def collect_set(
    entries: Sequence[Path], pkgdir: Path, sets: Path, trash: Path
) -> tuple[Package, ...]:
    """Copy the set below `sets` under its id; returns its packages, sorted by name and build.

    `entries` are the package database's directories of what was installed.
    """
    scratch = sets / ".incoming"
    private_folder(trash)  # now: on a full disk it could not be made, and nothing be deleted
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    try:
        copies = (_collect_package(entry, pkgdir, scratch) for entry in entries)
        packages = tuple(sorted(copies, key=lambda each: (each.cpv, each.build_id)))
        copy_plain(pkgdir / INDEX, scratch / INDEX)  # stanzas; publish checks and completes them
        _without_mirrors(scratch / INDEX)
    except BaseException:
        remove_tree(scratch, trash)
        raise
    target = sets / set_id(packages)
    remove_tree(target, trash)
    scratch.rename(target)
    sync_folder(sets)
    return packages


def set_id(packages: Sequence[Package]) -> str:
    """The id of a set: a digest of its packages."""
    rows = [asdict(package) for package in packages]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:32]


def _without_mirrors(index: Path) -> None:
    """Remove the URLs of mirrors from the index, as they may contain a password.

    Portage writes GENTOO_MIRRORS into the header (bintree._pkgindex_header_keys).
    """
    lines = index.read_bytes().splitlines(keepends=True)
    write_atomic(index, b"".join(x for x in lines if not x.startswith(b"GENTOO_MIRRORS:")))


def _collect_package(entry: Path, pkgdir: Path, scratch: Path) -> Package:
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
    return Package(
        cpv=name.cpv,
        build_id=name.build_id,
        slot=values.get("SLOT", ""),
        use=" ".join(sorted(values.get("USE", "").split())),
        repo=values.get("repository", ""),
        path=name.path,
        size=copy.stat().st_size,
        sha512=sha512(copy),
    )
