"""Candidates: writing content as a signed generation that no client sees yet.

A candidate has a view for every group: hard links to the packages that its members may have, with
an index, provenance, a bill of materials, a client bundle and a signed release manifest.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks import clock
from tasks.errors import BinmillError
from tasks.portage import index
from tasks.portage.index import INDEX, Stanza
from tasks.publish import bundle, generation, provenance, published, release_manifest, sbom
from tasks.publish.generation import CANDIDATES, Issue, Rollback, Source
from tasks.publish.published import SignedPackage
from tasks.publish.release_manifest import Manifest, Release
from tasks.system.command import run
from tasks.system.disk_space import explain_full_disk
from tasks.system.files import private_folder, remove_tree, sync_folder, write_atomic, write_parts

_PACKED = f"{INDEX}.gz"
# Portage asks for an index that changed since its TIMESTAMP plus five seconds (TIMESTAMP_TOLERANCE,
# portage/util/_urlopen.py): the server treats one that is five seconds younger as the same.
_APART = 6


@dataclass(frozen=True)
class Content:
    """The content of a generation. Paths are those of packages, below a view.

    `views` has the paths of each view by its folder's name; `stanzas` and `packages` have an entry
    for every path of a view. `header` is that of the build's index. `bundles` has the client
    bundle of each view.
    """

    header: Stanza
    stanzas: Mapping[str, Stanza]
    packages: Mapping[str, SignedPackage]
    views: Mapping[str, Sequence[str]]
    source: Source
    release: Release
    bundles: Mapping[str, bytes] = field(default_factory=dict)


# Writes a detached signature beside each of these files, and verifies it.
Signing = Callable[[Sequence[Path]], None]


def prepare(
    binhost: Path,
    content: Content,
    sign: Signing,
    trash: Path,
    *,
    valid_days: int,
    rollback: Rollback | None = None,
    number: int | None = None,
) -> int:
    """Write content as a candidate, which no client sees; returns its number.

    The packages are on the same file system. Earlier candidates are deleted; `number` is that of
    the candidate to replace. Raises BinmillError if one of the paths was another package before,
    and the errors of `sign`.
    """
    published.check_paths(binhost, content.packages)
    numbers = (*generation.numbers(binhost), *generation.numbers(binhost, CANDIDATES))
    number = number or max(numbers, default=0) + 1
    scratch = binhost / CANDIDATES / f".{number}.tmp"
    target = scratch.with_name(str(number))
    private_folder(trash)  # now: on a full disk nothing could be moved there
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    try:
        with explain_full_disk(scratch):
            issue = _issue(binhost, content, rollback)
            to_sign = _write(scratch, number, content, issue, valid_days)
            _sign(scratch, to_sign, sign)
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
    candidate = binhost / CANDIDATES / str(number)
    return candidate.is_dir() and (
        generation.load_folder(candidate).issue.timestamp >= _next_timestamp(binhost, now=0)
    )


def promote_candidate(binhost: Path, number: int) -> None:
    """Turn a candidate that `is_next` into a generation; generation.switch shows it to clients."""
    candidate, target = binhost / CANDIDATES / str(number), binhost / "gen" / str(number)
    published.add_paths(binhost, published.read_ledger(candidate))
    target.parent.mkdir(exist_ok=True)
    candidate.rename(target)
    sync_folder(target.parent)


def read_content(folder: Path) -> Content:
    """Read the content of a generation or candidate, for a new one with the same packages.

    Clients refuse an old index, so a rollback is a new generation. Raises BinmillError if a
    package is missing.
    """
    earlier, packages = generation.load_folder(folder), published.read_ledger(folder)
    header: Stanza = {}
    stanzas: dict[str, Stanza] = {}
    views: dict[str, list[str]] = {}
    bundles: dict[str, bytes] = {}
    for view in earlier.issue.views:
        stanzas_of_view = index.read(folder / view / INDEX)
        header = next(stanzas_of_view)
        by_path = {stanza["PATH"]: stanza for stanza in stanzas_of_view}
        stanzas |= by_path
        views[view] = list(by_path)
        with contextlib.suppress(FileNotFoundError):
            bundles[view] = (folder / view / bundle.NAME).read_bytes()
    for path in stanzas:
        if path not in packages or not packages[path].location.is_file():
            raise BinmillError("generation-incomplete", folder=folder, path=path)
    source = replace(earlier.source, first=earlier.first)
    release = release_manifest.read_release(folder / next(iter(views), ""))
    return Content(header, stanzas, packages, views, source, release, bundles)


def _issue(binhost: Path, content: Content, rollback: Rollback | None) -> Issue:
    return Issue(
        timestamp=_next_timestamp(binhost),
        created=int(clock.now()),
        views={view: len(paths) for view, paths in content.views.items()},
        packages=len(content.packages),
        rollback=rollback,
    )


def _write(
    scratch: Path, number: int, content: Content, issue: Issue, valid_days: int
) -> list[Path]:
    """Write a generation; returns the files to sign."""
    to_sign: list[Path] = []
    for view, paths in content.views.items():
        folder = scratch / view
        names = _write_view(folder, content, paths, issue.timestamp)
        names += _write_documents(folder, content, paths, number, issue.created)
        if view in content.bundles:
            write_atomic(folder / bundle.NAME, content.bundles[view])
            names.append(bundle.NAME)
        manifest = Manifest(
            release=content.release,
            group=view.replace(".", ":", 1),
            generation=number,
            timestamp=issue.timestamp,
            packages=len(paths),
            created=issue.created,
            valid_until=release_manifest.valid_until(issue.created, valid_days),
        )
        release_manifest.write(folder, manifest, names)
        to_sign += [folder / name for name in (INDEX, _PACKED, release_manifest.NAME)]
    view_of = {path: view for view, paths in content.views.items() for path in paths}
    published.write_ledger(scratch, content.packages, view_of)
    generation.write(scratch, content.source, issue)
    return to_sign


def _sign(scratch: Path, to_sign: Sequence[Path], sign: Signing) -> None:
    """Sign files of a generation, and flush all of it to the disk."""
    sign(to_sign)
    for file in to_sign:
        if not file.with_name(file.name + release_manifest.SIGNATURE).is_file():
            raise BinmillError("signature-missing", file=file)
    for directory, _, _ in os.walk(scratch):
        Path(directory).chmod(0o755)
    run("sync", "-f", scratch, timeout=3600)  # once: fsync(2) of each folder would take minutes


def _next_timestamp(binhost: Path, now: float | None = None) -> int:
    """A timestamp later than that of every generation, by as much as clients can tell apart."""
    numbers = generation.numbers(binhost)
    stamps = [generation.load(binhost, number).issue.timestamp for number in numbers]
    return max(int(clock.now() if now is None else now), max(stamps, default=-_APART) + _APART)


def _write_view(folder: Path, content: Content, paths: Sequence[str], timestamp: int) -> list[str]:
    """Link the packages, write the index, sorted by name and build number; returns its file names.

    The mtime of Packages and Packages.gz is the header's TIMESTAMP (bintree).
    """
    folder.mkdir()
    for parent in {Path(path).parent for path in paths}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path).hardlink_to(content.packages[path].location)
    header = index.header(content.header, len(paths), timestamp, content.source.revisions)
    ordered = sorted(paths, key=lambda p: _by_name(content.stanzas[p]))
    stanzas = (index.complete(content.stanzas[p], content.packages[p].sums) for p in ordered)
    blocks = itertools.chain((header,), stanzas)
    write_parts(folder / INDEX, (index.render(block).encode() for block in blocks))
    write_parts(folder / _PACKED, _compress(folder / INDEX))
    for name in (INDEX, _PACKED):
        os.utime(folder / name, (timestamp, timestamp))
    return [INDEX, _PACKED]


def _compress(path: Path) -> Iterator[bytes]:
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
    provenance.write(folder, ordered, content.stanzas, content.packages)
    sbom.write(
        folder,
        (content.packages[path].component for path in ordered),
        name=f"{content.release.name}/{folder.name}",
        version=str(number),
        created=created,
    )
    return [provenance.NAME, sbom.NAME]


def _by_name(stanza: Stanza) -> tuple[str, int]:
    return stanza["CPV"], int(stanza["BUILD_ID"])
