"""Generations: immutable directories of packages and their indexes; `current` points to one.

A generation has a view for every group, `gen/N/GROUP/`: hard links to the packages that members of
the group may have, with an index of its own. One rename switches all groups at once, so a client
sees either the old generation or the new one, complete.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.layout import pointer
from tasks.portage import index
from tasks.portage.index import INDEX, Stanza
from tasks.publish import bundle, provenance, published, release_manifest, retention, sbom
from tasks.publish.published import FACTS, SignedPackage
from tasks.publish.retention import Generation
from tasks.system.command import run
from tasks.system.disk_space import room_told
from tasks.system.files import closed_folder, remove_tree, sync_folder, write_atomic, write_parts

_PACKED = f"{INDEX}.gz"
# Portage asks for an index that changed since its TIMESTAMP plus five seconds (TIMESTAMP_TOLERANCE,
# portage/util/_urlopen.py): the server treats one that is five seconds younger as the same.
_APART = 6
# Keys that each generation sets for itself, even with the packages of an earlier one.
_OWN_KEYS = frozenset(
    {
        "timestamp",
        "created",
        "packages",
        "views",
        "revisions",
        "rollback",
        "instead_of",
        "group",
        "generation",
        "format",
        "valid_until",
        "files",
    }
)


@dataclass(frozen=True)
class Content:
    """The content of a generation. Paths are those of packages, below a view.

    `views` has the paths of each view by its folder's name; `stanzas` and `files` have an entry
    for every path of a view. `header` is that of the build's index. `release` are the keys of the
    release manifests that all views share; `about` are further keys of generation.json, `signer`
    among them. `bundles` has the client bundle of each view.
    """

    header: Stanza
    stanzas: Mapping[str, Stanza]
    files: Mapping[str, SignedPackage]
    views: Mapping[str, Sequence[str]]
    revisions: Mapping[str, str]
    release: Mapping[str, Any]
    about: Mapping[str, Any]
    valid_days: int
    bundles: Mapping[str, bytes] = field(default_factory=dict)


# Writes a detached signature beside each of these files, and verifies it.
Signing = Callable[[Sequence[Path]], None]


def current(binhost: Path, channel: str = "", *, previous: bool = False) -> int | None:
    """The number of the generation that a channel serves, or served before; None without one."""
    return _pointed(binhost / pointer(channel, previous=previous))


def _pointed(link: Path) -> int | None:
    if not link.is_symlink() or not link.is_dir():  # none yet, or its generation was deleted
        return None
    return int(link.readlink().name)


def publish(binhost: Path, content: Content, sign: Signing, trash: Path) -> int:
    """Publish content at once, without the gate; returns the number of the new generation."""
    number = prepare(binhost, content, sign, trash)
    let_out(binhost, number)
    switch(binhost, number)
    return number


def prepare(
    binhost: Path, content: Content, sign: Signing, trash: Path, number: int | None = None
) -> int:
    """Write content as a candidate, which no client sees; returns its number.

    The packages are on the same file system. Earlier candidates are deleted; `number` is that of
    the candidate to replace. Raises BinmillError if one of the paths was another package before,
    and the errors of `sign`.
    """
    published.check(binhost, content.files)
    earlier = published.numbers(binhost, published.CANDIDATES)
    number = number or max((*published.numbers(binhost), *earlier), default=0) + 1
    scratch = binhost / published.CANDIDATES / f".{number}.tmp"
    target = scratch.with_name(str(number))
    closed_folder(trash)  # now: on a full disk nothing could be moved there
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    try:
        with room_told(scratch):
            _fill(scratch, number, binhost, content, sign)
        remove_tree(target, trash)
        scratch.rename(target)
        # only now: the number in a record must not become free for other content
        for other in [entry for entry in target.parent.iterdir() if entry != target]:
            remove_tree(other, trash)
    except BaseException:
        remove_tree(scratch, trash)
        raise
    sync_folder(scratch.parent)
    return number


def is_next(binhost: Path, number: int) -> bool:
    """True for a candidate that is newer than every generation, so that clients accept it."""
    candidate = binhost / published.CANDIDATES / str(number)
    return candidate.is_dir() and (
        published.facts_in(candidate)["timestamp"] >= _next_timestamp(binhost, now=0)
    )


def let_out(binhost: Path, number: int) -> None:
    """Make a candidate that `is_next` a generation; `switch` shows it to clients."""
    candidate, target = binhost / published.CANDIDATES / str(number), binhost / "gen" / str(number)
    published.add_published(binhost, published.files(candidate))
    target.parent.mkdir(exist_ok=True)
    candidate.rename(target)
    sync_folder(target.parent)


def content_of(folder: Path, valid_days: int, **about: Any) -> Content:
    """Read the content of a generation or candidate, for a new one with the same packages.

    Clients refuse an old index, so a rollback is a new generation. `about` are further keys of its
    generation.json. Raises BinmillError if a package is missing.
    """
    facts, files = published.facts_in(folder), published.files(folder)
    header: Stanza = {}
    stanzas: dict[str, Stanza] = {}
    views: dict[str, list[str]] = {}
    manifest: dict[str, Any] = {}
    bundles: dict[str, bytes] = {}
    for view in facts["views"]:
        read = index.read(folder / view / INDEX)
        header = next(read)
        listed = {stanza["PATH"]: stanza for stanza in read}
        stanzas |= listed
        views[view] = list(listed)
        manifest = release_manifest.read(folder / view)
        with contextlib.suppress(FileNotFoundError):
            bundles[view] = (folder / view / bundle.NAME).read_bytes()
    for path in stanzas:
        file = files.get(path)
        if file is None or not file.location.is_file():
            raise BinmillError("generation-incomplete", folder=folder, path=path)
    return Content(
        header=header,
        stanzas=stanzas,
        files=files,
        views=views,
        revisions=facts["revisions"],
        valid_days=valid_days,
        release={key: value for key, value in manifest.items() if key not in _OWN_KEYS},
        about={k: v for k, v in facts.items() if k not in _OWN_KEYS} | about,
        bundles=bundles,
    )


def _fill(scratch: Path, number: int, binhost: Path, content: Content, sign: Signing) -> None:
    """Write and sign a generation, and flush it to the disk."""
    timestamp, created = _next_timestamp(binhost), int(time.time())
    to_sign: list[Path] = []
    for view, paths in content.views.items():
        folder = scratch / view
        names = _write_view(folder, content, paths, timestamp)
        names += _write_documents(folder, content, paths, number, created)
        if view in content.bundles:
            write_atomic(folder / bundle.NAME, content.bundles[view])
            names.append(bundle.NAME)
        manifest = {
            **content.release,
            "group": view.replace(".", ":", 1),
            "generation": number,
            "timestamp": timestamp,
            "packages": len(paths),
        }
        release_manifest.write(
            folder, names, manifest, created=created, valid_days=content.valid_days
        )
        to_sign += [folder / name for name in (INDEX, _PACKED, release_manifest.NAME)]
    _write_facts(scratch, content, timestamp, created)
    sign(to_sign)
    for file in to_sign:
        if not file.with_name(file.name + release_manifest.SIGNATURE).is_file():
            raise BinmillError("signature-missing", file=file)
    for directory, _, _ in os.walk(scratch):
        Path(directory).chmod(0o755)
    run("sync", "-f", scratch, timeout=3600)  # once: fsync(2) of each folder would take minutes


def switch(binhost: Path, number: int, channel: str = "") -> None:
    """Point `current` at a generation by one rename, and `previous` at the one before it.

    A client that read the index before the switch still finds its packages at `previous`.
    """
    if not (binhost / "gen" / str(number)).is_dir():
        raise BinmillError("generation-missing", number=number, binhost=binhost)
    before = current(binhost, channel)
    if before is not None and before != number:
        _point(binhost, pointer(channel, previous=True), before)
    _point(binhost, pointer(channel), number)


def _point(binhost: Path, name: str, number: int) -> None:
    link = binhost / f".{name}.tmp"
    link.unlink(missing_ok=True)  # left by a killed run
    link.symlink_to(f"gen/{number}")
    link.rename(binhost / name)
    sync_folder(binhost)


def kept(binhost: Path) -> list[Generation]:
    """List the generations with the names that point to them, then the candidates; oldest first."""
    links = {}
    for link in sorted(binhost.glob("*")) if binhost.is_dir() else []:
        if link.is_symlink() and (number := _pointed(link)) is not None:
            links[link.name.removeprefix("channel.")] = number
    found = []
    for where in ("gen", published.CANDIDATES):
        for number in published.numbers(binhost, where):
            facts = published.facts_in(binhost / where / str(number))
            found.append(
                Generation(
                    number,
                    facts["timestamp"],
                    facts["set"],
                    facts["packages"],
                    () if where != "gen" else retention.pointing(links, number),
                    facts.get("rollback"),
                    where != "gen",
                )
            )
    return found


def prune(
    binhost: Path, pinned: Collection[int], *, keep: int, keep_days: int, trash: Path
) -> list[int]:
    """Delete the generations that are not needed (retention.expendable); returns their numbers.

    A download in progress has its file open, and continues.
    """
    expendable = retention.expendable(
        kept(binhost), pinned, keep=keep, keep_days=keep_days, now=time.time()
    )
    for number in expendable:
        remove_tree(binhost / "gen" / str(number), trash)
    return expendable


def _next_timestamp(binhost: Path, now: float | None = None) -> int:
    """A timestamp later than that of every generation, by as much as clients can tell apart."""
    stamps: list[int] = [
        published.facts(binhost, n)["timestamp"] for n in published.numbers(binhost)
    ]
    return max(int(time.time() if now is None else now), max(stamps, default=-_APART) + _APART)


def _write_view(folder: Path, content: Content, paths: Sequence[str], timestamp: int) -> list[str]:
    """Link the packages, write the index, sorted by name and build number; returns its file names.

    The mtime of Packages and Packages.gz is the header's TIMESTAMP (bintree).
    """
    folder.mkdir()
    for parent in {Path(path).parent for path in paths}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path).hardlink_to(content.files[path].location)
    header = index.header(content.header, len(paths), timestamp, content.revisions)
    ordered = sorted(paths, key=lambda p: _by_name(content.stanzas[p]))
    stanzas = (index.complete(content.stanzas[p], content.files[p].sums) for p in ordered)
    blocks = itertools.chain((header,), stanzas)
    write_parts(folder / INDEX, (index.render(block).encode() for block in blocks))
    write_parts(folder / _PACKED, _compressed(folder / INDEX))
    for name in (INDEX, _PACKED):
        os.utime(folder / name, (timestamp, timestamp))
    return [INDEX, _PACKED]


def _compressed(path: Path) -> Iterator[bytes]:
    """Compress a file as gzip(1) does, without name and time: equal texts give equal bytes."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            yield compressor.compress(chunk)
    yield compressor.flush()


def _write_documents(
    folder: Path, content: Content, paths: Sequence[str], number: int, created: int
) -> list[str]:
    """Write provenance and bill of materials of a view; returns their file names."""
    ordered = sorted(paths)
    provenance.write(folder, ordered, content.stanzas, content.files)
    sbom.write(
        folder,
        (content.files[path].component for path in ordered),
        name=f"{content.release['name']}/{folder.name}",
        version=str(number),
        created=created,
    )
    return [provenance.NAME, sbom.NAME]


def _by_name(stanza: Stanza) -> tuple[str, int]:
    return stanza["CPV"], int(stanza["BUILD_ID"])


def _write_facts(folder: Path, content: Content, timestamp: int, created: int) -> None:
    view_of = {path: view for view, paths in content.views.items() for path in paths}
    published.write_packages(folder, content.files, view_of)
    facts = {
        **content.about,
        "timestamp": timestamp,
        "created": created,
        "packages": len(content.files),
        "views": {view: len(paths) for view, paths in content.views.items()},
        "revisions": dict(content.revisions),
    }
    write_atomic(folder / FACTS, json.dumps(facts, indent=1, sort_keys=True) + "\n")
