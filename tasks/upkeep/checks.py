"""Whether what a record names still is what was made: one check for each kind of artifact.

Each yields a line per flaw and is told, by `seen`, how many bytes were read. They read only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks import records
from tasks.errors import BinmillError
from tasks.records import Record
from tasks.site import Site, identity
from tasks.system.files import digests

Seen = Callable[[int], None]
Check = Callable[[Site, str, Record, Seen], Iterator[str]]


def flaws(site: Site, task: str, record: Record, seen: Seen) -> Iterator[str]:
    """What is wrong with what a record names, beyond that it is there.

    Raises BinmillError where what it is held against cannot be read.
    """
    check = _CHECKS.get(task.partition(":")[0])
    if check is not None:
        yield from check(site, task, record, seen)


def _tree(site: Site, task: str, record: Record, seen: Seen) -> Iterator[str]:
    from tasks.snapshot import export

    name = task.partition(":")[2]
    repository = site.layout.overlay(name) if name else site.layout.tree
    commit = record["commit"]
    if not (repository / "HEAD").is_file():
        return  # nothing to hold it against; the repository itself is looked at elsewhere
    yield from export.differences(repository, commit, site.layout.export(commit), seen)


def _seed(site: Site, task: str, record: Record, seen: Seen) -> Iterator[str]:  # noqa: ARG001
    from tasks.system import tree_manifest

    layout = site.layout
    try:
        yield from tree_manifest.differences(
            layout.seed(record["sha512"]), layout.seed_listing(record["sha512"]), seen
        )
    except tree_manifest.Damaged as error:
        yield f"cannot be checked: {error.message}"


def _layer(site: Site, task: str, record: Record, seen: Seen) -> Iterator[str]:
    from tasks.system.tree_manifest import texts

    name = task.partition(":")[2]
    # what somebody has done by hand lies on top, and nothing says what it should be
    own, *below = record["layers"][name in record.get("touched", ()) :]
    found = texts(site.layout.state / own)
    seen(sum(map(len, found.values())))
    if identity([below, found])[:32] != Path(own).name:
        yield f"{own} is not what it was made of"


def _etc(site: Site, task: str, record: Record, seen: Seen) -> Iterator[str]:  # noqa: ARG001
    from tasks.portage import etc_portage
    from tasks.system.tree_manifest import texts

    folder = site.layout.state / record["path"]
    found = texts(folder)
    seen(sum(map(len, found.values())))
    link = folder / etc_portage.PROFILE
    leads = str(link.readlink()) if link.is_symlink() else ""
    named = [identity([files, leads])[:32] for files in etc_portage.settled(found)]
    if folder.name not in named:
        yield f"{record['path']} is not what was generated"


def _set(site: Site, task: str, record: Record, seen: Seen) -> Iterator[str]:
    from tasks.portage import index
    from tasks.portage.index import INDEX

    packages = record["packages"]
    text = json.dumps(packages, sort_keys=True).encode()
    if hashlib.sha256(text).hexdigest()[:32] != record["set"]:
        yield "its record does not list the packages of its set"
    folder = site.layout.binpkgs(task.partition(":")[2]) / record["set"]
    for package in packages:
        path = folder / package["path"]
        try:
            if digests(path, "sha512")["sha512"] != package["sha512"]:
                yield f"{package['path']} has changed"
        except OSError as error:
            yield f"{package['path']}: {error.strerror}"
        else:
            seen(path.stat().st_size)
    try:
        _, stanzas = index.parse((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stanzas = []
    listed = {stanza.get("PATH") for stanza in stanzas}
    if unlisted := [p["path"] for p in packages if p["path"] not in listed]:
        yield f"{INDEX} does not list {unlisted[0]}"


def mirror(site: Site, group: str, seen: Seen) -> Iterator[tuple[str, str]]:
    """The distfiles of a group that are not what a Manifest says: name, and a line.

    Nothing is known of those that no Manifest of the locked tree and overlays names.
    """
    from tasks.serve import distfiles

    folder = site.layout.mirror(group)
    held = distfiles.held(folder)
    if not held:
        return
    tasks = ["tree", *(f"overlay:{name}" for name in site.config.overlays)]
    try:
        trees = [site.layout.export(records.read(site.layout, t)["commit"]) for t in tasks]
    except BinmillError:
        return
    wanted = distfiles.wanted(trees)
    for name in sorted(held & wanted.keys()):
        try:
            seen(distfiles.check(folder / name, name, wanted[name]).size)
        except (BinmillError, OSError) as error:
            yield name, str(getattr(error, "message", error))


_CHECKS: dict[str, Check] = {
    "tree": _tree,
    "overlay": _tree,
    "seed": _seed,
    "chroot": _layer,
    "etc": _etc,
    "binpkgs": _set,
}
