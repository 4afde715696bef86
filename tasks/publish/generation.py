"""Generations: immutable directories of packages and their indexes; `current` points to one.

A generation has a view for every group, `gen/N/GROUP/`: what that group's members may have, with an
index of its own, and hard links to the packages. The switch is one rename, for all groups at once:
a client sees the old generation or the new one, whole.
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
from tasks.publish.published import FACTS, File
from tasks.publish.retention import Generation
from tasks.system.command import run
from tasks.system.disk_space import room_told
from tasks.system.files import closed_folder, remove_tree, sync_folder, write_atomic, write_parts

_PACKED = f"{INDEX}.gz"
# Portage asks whether the index changed since its TIMESTAMP plus five seconds (TIMESTAMP_TOLERANCE,
# portage/util/_urlopen.py): to a server, one that is five seconds later is the same.
_APART = 6
# What a generation says of itself that one which has its packages again says anew.
_MADE_ANEW = frozenset(
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
    """What a generation is made of. Paths are those of packages, below a view.

    `views` has the paths of each view by its folder's name; `stanzas` and `files` have an entry
    for every path that is in a view. `header` is that of the build's index. `release` is what the
    release manifests tell (release.write), without what differs by view; `about` is what the
    generation is to remember beside that: plain data, `signer` among it. `bundles` has that of
    each view, for its clients.
    """

    header: Stanza
    stanzas: Mapping[str, Stanza]
    files: Mapping[str, File]
    views: Mapping[str, Sequence[str]]
    revisions: Mapping[str, str]
    release: Mapping[str, Any]
    about: Mapping[str, Any]
    valid_days: int
    bundles: Mapping[str, bytes] = field(default_factory=dict)


# Makes a detached signature beside each of these files (release.SIGNATURE), and verifies it.
Signing = Callable[[Sequence[Path]], None]


def current(binhost: Path, channel: str = "", *, previous: bool = False) -> int | None:
    """The number of the generation that clients of a channel get, or got before it; or None."""
    return _pointed(binhost / pointer(channel, previous=previous))


def _pointed(link: Path) -> int | None:
    if not link.is_symlink() or not link.is_dir():  # none yet, or it was deleted by hand
        return None
    return int(link.readlink().name)


def publish(binhost: Path, content: Content, sign: Signing, trash: Path) -> int:
    """Make the content the current generation at once; returns its number."""
    number = prepare(binhost, content, sign, trash)
    let_out(binhost, number)
    switch(binhost, number)
    return number


def prepare(
    binhost: Path, content: Content, sign: Signing, trash: Path, number: int | None = None
) -> int:
    """Make the content a candidate, which no client sees; returns its number.

    Its files are on the same file system. Earlier candidates are deleted; `number` is that of the
    one that this one is instead of. Raises BinmillError if one of its paths was another package
    before, and what `sign` raises.
    """
    published.check(binhost, content.files)
    earlier = published.numbers(binhost, published.CANDIDATES)
    number = number or max((*published.numbers(binhost), *earlier), default=0) + 1
    scratch = binhost / published.CANDIDATES / f".{number}.tmp"
    target = scratch.with_name(str(number))
    closed_folder(trash)  # now: on a full disk nothing could be deleted any more
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    try:
        with room_told(scratch):
            _fill(scratch, number, binhost, content, sign)
        remove_tree(target, trash)
        scratch.rename(target)
        # only now: a number that a record names must not be free for another content
        for left in [entry for entry in target.parent.iterdir() if entry != target]:
            remove_tree(left, trash)
    except BaseException:
        remove_tree(scratch, trash)
        raise
    sync_folder(scratch.parent)
    return number


def is_next(binhost: Path, number: int) -> bool:
    """Whether this is a candidate that is newer than every generation: clients would take it."""
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
    """What a generation or candidate was made of, to be made again; `about` is said beside that.

    A client must not be given an old index again, so what comes back is a new generation of the
    same packages. Raises BinmillError where one of them is not there any more.
    """
    facts, files = published.facts_in(folder), published.files(folder)
    header: Stanza = {}
    stanzas: dict[str, Stanza] = {}
    views: dict[str, list[str]] = {}
    told: dict[str, Any] = {}
    bundles: dict[str, bytes] = {}
    for view in facts["views"]:
        read = index.read(folder / view / INDEX)
        header = next(read)
        listed = {stanza["PATH"]: stanza for stanza in read}
        stanzas |= listed
        views[view] = list(listed)
        told = release_manifest.read(folder / view)
        with contextlib.suppress(FileNotFoundError):
            bundles[view] = (folder / view / bundle.NAME).read_bytes()
    for path in stanzas:
        file = files.get(path)
        if file is None or not file.place.is_file():
            raise BinmillError(
                f"{folder} is damaged: it has no {path} any more",
                "take another generation; doit fsck has more",
            )
    return Content(
        header=header,
        stanzas=stanzas,
        files=files,
        views=views,
        revisions=facts["revisions"],
        valid_days=valid_days,
        release={key: value for key, value in told.items() if key not in _MADE_ANEW},
        about={k: v for k, v in facts.items() if k not in _MADE_ANEW} | about,
        bundles=bundles,
    )


def _fill(scratch: Path, number: int, binhost: Path, content: Content, sign: Signing) -> None:
    """Write a generation, signed, and see to it that it is on the disk."""
    timestamp, created = _next_timestamp(binhost), int(time.time())
    to_sign: list[Path] = []
    for view, paths in content.views.items():
        folder = scratch / view
        names = _write_view(folder, content, paths, timestamp)
        names += _write_documents(folder, content, paths, number, created)
        if view in content.bundles:
            write_atomic(folder / bundle.NAME, content.bundles[view])
            names.append(bundle.NAME)
        told = {
            **content.release,
            "group": view.replace(".", ":", 1),
            "generation": number,
            "timestamp": timestamp,
            "packages": len(paths),
        }
        release_manifest.write(folder, names, told, created=created, valid_days=content.valid_days)
        to_sign += [folder / name for name in (INDEX, _PACKED, release_manifest.NAME)]
    _write_facts(scratch, content, timestamp, created)
    sign(to_sign)
    for signed in to_sign:
        if not signed.with_name(signed.name + release_manifest.SIGNATURE).is_file():
            raise BinmillError(f"{signed} has no signature; nothing is published unsigned")
    for place, _, _ in os.walk(scratch):
        Path(place).chmod(0o755)
    run("sync", "-f", scratch, timeout=3600)  # once: fsync(2) of each folder takes minutes


def switch(binhost: Path, number: int, channel: str = "") -> None:
    """Point `current` at a generation, by one rename; `previous` at the one before it.

    A client that has read the index before the switch still finds there what it names.
    """
    if not (binhost / "gen" / str(number)).is_dir():
        raise BinmillError(f"there is no generation {number} in {binhost}")
    before = current(binhost, channel)
    if before is not None and before != number:
        _point(binhost, pointer(channel, previous=True), before)
    _point(binhost, pointer(channel), number)


def _point(binhost: Path, name: str, number: int) -> None:
    link = binhost / f".{name}.tmp"
    link.unlink(missing_ok=True)  # of a killed run
    link.symlink_to(f"gen/{number}")
    link.rename(binhost / name)
    sync_folder(binhost)


def kept(binhost: Path) -> list[Generation]:
    """Every generation there is, and what points to it; then the candidates. Oldest first."""
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
    """Delete the generations that may go (history.expendable); returns their numbers.

    A download that has begun has its file open, and goes on.
    """
    gone = retention.expendable(
        kept(binhost), pinned, keep=keep, keep_days=keep_days, now=time.time()
    )
    for number in gone:
        remove_tree(binhost / "gen" / str(number), trash)
    return gone


def _next_timestamp(binhost: Path, now: float | None = None) -> int:
    """Later than all kept generations, current or not, by as much as a client can tell apart."""
    seen: list[int] = [published.facts(binhost, n)["timestamp"] for n in published.numbers(binhost)]
    return max(int(time.time() if now is None else now), max(seen, default=-_APART) + _APART)


def _write_view(folder: Path, content: Content, paths: Sequence[str], timestamp: int) -> list[str]:
    """Link the packages and write their index, sorted by name and build number; its files' names.

    Packages and Packages.gz have the header's TIMESTAMP as their mtime (bintree).
    """
    folder.mkdir()
    made: set[Path] = set()
    for path in paths:
        place = folder / path
        if place.parent not in made:
            place.parent.mkdir(parents=True, exist_ok=True)
            made.add(place.parent)
        place.hardlink_to(content.files[path].place)
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
    """A file as gzip(1) has it, without name and time: the same text gives the same bytes."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            yield packer.compress(chunk)
    yield packer.flush()


def _write_documents(
    folder: Path, content: Content, paths: Sequence[str], number: int, created: int
) -> list[str]:
    """Write what is told of a view's packages beside the index; its files' names."""
    ordered = sorted(paths)
    provenance.write(folder, ordered, content.stanzas, content.files)
    sbom.write(
        folder,
        (content.files[path].component for path in ordered),
        name=f"{content.release['name']}/{folder.name}",
        told=str(number),
        created=created,
    )
    return [provenance.NAME, sbom.NAME]


def _by_name(stanza: Stanza) -> tuple[str, int]:
    return stanza["CPV"], int(stanza["BUILD_ID"])


def _write_facts(folder: Path, content: Content, timestamp: int, created: int) -> None:
    where = {path: view for view, paths in content.views.items() for path in paths}
    published.write_packages(folder, content.files, where)
    told = {
        **content.about,
        "timestamp": timestamp,
        "created": created,
        "packages": len(content.files),
        "views": {view: len(paths) for view, paths in content.views.items()},
        "revisions": dict(content.revisions),
    }
    write_atomic(folder / FACTS, json.dumps(told, indent=1, sort_keys=True) + "\n")
