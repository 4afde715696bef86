"""A set: the packages of a finished build, or of the store, with their index.

The chroot is not trusted: names are parsed, files are opened without following links and copied out
of its reach before they are read. An installed package without a binpkg is an error, since clients
would lack it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.domain import Package
from tasks.errors import BinmillError, NotTrusted
from tasks.portage import gpkg, index, vdb
from tasks.portage.index import INDEX
from tasks.store import claims
from tasks.store.built import Built
from tasks.store.store import Store
from tasks.system.files import (
    copy_plain,
    private_folder,
    remove_tree,
    sha512,
    sync_folder,
    write_atomic,
)

if TYPE_CHECKING:
    from tasks.planner.plan import PlannedPackage

# Headers that Portage writes with the URLs of mirrors, which may contain a password.
_OF_MIRRORS = frozenset({"GENTOO_MIRRORS", "URI"})


def collect_set(
    entries: Sequence[Path], pkgdir: Path, sets: Path, trash: Path
) -> tuple[Package, ...]:
    """Copy the set below `sets` under its id; returns its packages, sorted by name and build.

    `entries` are the package database's directories of what was installed.
    """
    with _incoming(sets, trash) as scratch:
        copies = (_collect_package(entry, pkgdir, scratch) for entry in entries)
        packages = tuple(sorted(copies, key=lambda each: (each.cpv, each.build_id)))
        copy_plain(pkgdir / INDEX, scratch / INDEX)  # stanzas; publish checks and completes them
        _without_mirrors(scratch / INDEX)
        _finish(scratch, packages, trash)
    return packages


def collect_from_store(
    store: Store,
    packages: Sequence[tuple[PlannedPackage, Built]],
    header: Mapping[str, str],
    sets: Path,
) -> tuple[Package, ...]:
    """Make a set of packages of the store, below `sets` under its id; returns them as collect_set.

    Every package is read, and compared with its digest and with the plan. `header` is that of the
    index, as the chroot's Portage writes it. The packages are links to those of the store.
    """
    trash = store.layout.trash
    with _incoming(sets, trash) as scratch:
        members = tuple(
            _collect_stored(store, planned, built, scratch)
            for planned, built in sorted(packages, key=lambda each: each[0].cpv)
        )
        kept = {key: value for key, value in header.items() if key not in _OF_MIRRORS}
        stanzas = {built.cpv: built.stanza.strip("\n") + "\n\n" for _, built in packages}
        kept["PACKAGES"] = str(len(stanzas))
        parts = (index.render(kept), *(stanzas[cpv] for cpv in sorted(stanzas)))
        write_atomic(scratch / INDEX, "".join(parts))
        for folder in {(scratch / member.path).parent for member in members}:
            sync_folder(folder)
            sync_folder(folder.parent)
        _finish(scratch, members, trash)
    return members


@contextmanager
def _incoming(sets: Path, trash: Path) -> Iterator[Path]:
    """Yield an empty folder for a set; it is deleted after an error."""
    scratch = sets / ".incoming"
    private_folder(trash)  # now: on a full disk it could not be made, and nothing be deleted
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    except BaseException:
        remove_tree(scratch, trash)
        raise


def _finish(scratch: Path, packages: Sequence[Package], trash: Path) -> None:
    """Give a set its name."""
    target = scratch.with_name(set_id(packages))
    remove_tree(target, trash)
    scratch.rename(target)
    sync_folder(target.parent)


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
    return _package(name, values, copy.stat().st_size, sha512(copy))


def _collect_stored(store: Store, planned: PlannedPackage, built: Built, scratch: Path) -> Package:
    """Verify a package of the store and link it to its place in a set."""
    name, source = built.name, store.verify_package(built)
    values = gpkg.metadata(source)
    claims.check(planned, built.build_id, values)
    claims.check_stanza(built, values)
    _link(source, scratch / name.path)
    return _package(name, values, built.size, built.sha512)


def _link(source: Path, target: Path) -> None:
    """Make a second name of a file, or a copy where the file system has no more of them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EMLINK, errno.EXDEV, errno.EPERM):
            raise
        shutil.copyfile(source, target)


def _package(name: gpkg.Name, values: Mapping[str, str], size: int, digest: str) -> Package:
    return Package(
        cpv=name.cpv,
        build_id=name.build_id,
        slot=values.get("SLOT", ""),
        use=" ".join(sorted(values.get("USE", "").split())),
        repo=values.get("repository", ""),
        path=name.path,
        size=size,
        sha512=digest,
    )
