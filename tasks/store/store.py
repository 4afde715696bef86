"""The store: packages that were built one by one, by input key; all chroots of a site share it.

A key leads to an entry, which names a package by its SHA-512 and a merge layer by its id. Entries
are written last and in one step: a killed run leaves a whole entry or none. Of packages with the
same name and identity the oldest stays, and newer keys lead to it, too.

An entry that cannot be read, or that names a missing file, does not exist: its package is built
again. A file with other content than its name says is an error, since nothing explains it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import clock
from tasks.errors import BinmillError, NotTrusted
from tasks.layout import Layout
from tasks.portage import gpkg
from tasks.store import claims
from tasks.store.built import Built, Entry, Product
from tasks.system import tree_manifest
from tasks.system.command import run
from tasks.system.files import (
    copy_plain,
    move_to_trash,
    private_folder,
    remove_tree,
    sha512,
    sync_folder,
    write_atomic,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from tasks.store.identity import Contents

_HEX = re.compile(r"[0-9a-f]{32,128}")
# Portage counts up to a build number, so a large one would take long. A published package of the
# other driver may have any; its build chose it.
MOST_BUILDS = 10_000
_NUMBER = re.compile(r"[1-9][0-9]{0,3}")
_ENTRY_LIMIT = 4 << 20  # bytes; a stanza has kilobytes


@dataclass(frozen=True)
class Store:
    """The store of a site. Threads and processes may use it at the same time."""

    layout: Layout

    def lookup(self, key: str) -> Built | None:
        """The package of an input key; None if it must be built.

        The files are only looked at; `verify_package` and `verify_layer` read them.
        """
        entry = self.read_entry(self.layout.store_entry(key))
        return entry.built if entry and entry.key == key and self._is_there(entry.built) else None

    def read_entry(self, path: Path) -> Entry | None:
        """The entry that a file has; None if there is none, or it is damaged."""
        raw = _small_file(path)
        return _parsed(Entry, raw, _is_entry) if raw is not None else None

    def _is_there(self, built: Built) -> bool:
        package = self.layout.store_package(built.sha512)
        try:
            if package.lstat().st_size != built.size:
                return False
        except FileNotFoundError:
            return False
        layer = built.layer
        return not layer or (self.layout.store_layer(layer).is_dir() and self._has_listing(layer))

    def verify_package(self, built: Built) -> Path:
        """Read a package and compare it with its digest; returns its path.

        Raises NotTrusted if it has changed.
        """
        path = self.layout.store_package(built.sha512)
        try:
            intact = not path.is_symlink() and sha512(path) == built.sha512
        except OSError:
            intact = False
        if not intact:
            raise NotTrusted("store-package-changed", package=built.cpv, path=path)
        return path

    def verify_layer(self, layer: str) -> Path:
        """Compare a merge layer with its listing; returns its folder, raises NotTrusted.

        Its files are read only if one of their inodes has changed since they were read last (any
        write sets the ctime, which no program can set back); fsck reads them always.
        """
        path = self.layout.store_layer(layer)
        mark, state = self.layout.store_verified(layer), _inodes_or_none(path)
        if state is None or _small_file(mark) != state or not self._has_listing(layer):
            difference = next(self.layer_differences(layer), None)
            if difference is not None:
                raise NotTrusted("store-layer-changed", path=path, cause=difference)
            # the state before it was read: a change meanwhile is seen by the next one
            write_atomic(mark, state or b"", mode=0o600)
        return path

    def layer_differences(
        self, layer: str, on_read: tree_manifest.OnRead = lambda _size: None
    ) -> Iterator[str]:
        """Read a layer, and yield a line for each difference from its listing."""
        listing = self.layout.store_listing(layer)
        try:
            if _layer_id(listing) != layer:  # the listing belongs to the id, so none can replace it
                yield f"{listing.name} is the listing of another layer"
                return
            yield from tree_manifest.differences(self.layout.store_layer(layer), listing, on_read)
        except tree_manifest.Damaged as error:
            yield error.message
        except FileNotFoundError as error:
            yield f"{error.filename} is missing"

    def _has_listing(self, layer: str) -> bool:
        return self.layout.store_listing(layer).is_file()

    def add(self, key: str, product: Product) -> Built:
        """Add a finished build; returns the package that the key leads to from now on.

        That is an older one if it has the same name, repository and identity, and is the same to
        clients. The layer's folder is moved into the store, or deleted; the package is copied.
        Raises NotTrusted if the package is damaged, or not the one that was to be built.
        """
        from tasks.store import identity

        with self._incoming() as scratch:
            package = scratch / "package"
            copy_plain(product.package, package)
            contents = identity.read(package)
            built = _described(key, product, package, contents)
            output = self.layout.store_output(_output_digest(built))
            older = self._output(output, layer=product.layer is not None)
            if older is None:
                built = self._keep(product, built, package, scratch)
                older = self._first(output, built, scratch)
            self._write_entry(Entry(key, older))
        if product.layer is not None:
            remove_tree(product.layer, self.layout.trash)
        return older

    def add_key(self, key: str, built: Built) -> None:
        """Let another key lead to a package of the store."""
        self._write_entry(Entry(key, built))

    @contextlib.contextmanager
    def _incoming(self) -> Iterator[Path]:
        """Yield a folder for files on their way into the store; it is deleted at the end."""
        private_folder(self.layout.store)
        private_folder(self.layout.trash)  # now: a full disk would have no inode for it
        for path in ("incoming", "entries", "outputs", "packages", "inputs", "layers"):
            (self.layout.store / path).mkdir(exist_ok=True)
        scratch = self.layout.store_incoming / secrets.token_hex(8)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            remove_tree(scratch, self.layout.trash)

    def _keep(self, product: Product, built: Built, package: Path, scratch: Path) -> Built:
        """Move package and layer to their places; returns it with the id of its layer."""
        layer = self._keep_layer(product.layer, scratch) if product.layer else ""
        target = self.layout.store_package(built.sha512)
        package.replace(target)
        sync_folder(target.parent)
        return replace(built, layer=layer)

    def _keep_layer(self, folder: Path, scratch: Path) -> str:
        """Move a layer to its place, with its listing before it; returns its id."""
        run("sync", "--file-system", folder)
        listing = scratch / "listing"
        tree_manifest.write(folder, listing)
        layer = _layer_id(listing)
        listing.replace(self.layout.store_listing(layer))
        target = self.layout.store_layer(layer)
        if target.exists() and next(self.layer_differences(layer), None) is not None:
            move_to_trash(target, self.layout.trash)
        with contextlib.suppress(FileExistsError):  # the same one: that of another chroot
            _rename_new(folder, target)
        sync_folder(target.parent)
        write_atomic(self.layout.store_verified(layer), _inodes(target), mode=0o600)
        return layer

    def _output(self, path: Path, *, layer: bool) -> Built | None:
        """The oldest package of an identity, if it is intact, with a layer if one is needed."""
        raw = _small_file(path)
        built = _parsed(Built, raw, _is_built) if raw is not None else None
        if built is None or self.layout.store_output(_output_digest(built)) != path:
            return None
        try:
            self.verify_package(built)
            if built.layer:
                self.verify_layer(built.layer)
        except NotTrusted:
            return None
        return built if built.layer or not layer else None

    def _first(self, output: Path, built: Built, scratch: Path) -> Built:
        """Make a package the oldest of its identity; returns another that was faster."""
        new = scratch / "output"
        write_atomic(new, _render(built))
        while True:
            try:
                os.link(new, output)
            except FileExistsError:
                faster = self._output(output, layer=bool(built.layer))
                if faster is not None:
                    return faster
                # Damaged, or of a package that is. If another process writes a new one at this very
                # moment, both packages stay, each with its entry.
                output.unlink(missing_ok=True)
            else:
                sync_folder(output.parent)
                return built

    def _write_entry(self, entry: Entry) -> None:
        write_atomic(self.layout.store_entry(entry.key), _render(entry))

    def entries(self) -> dict[Path, Entry | None]:
        """All entries by their files; None for a damaged one."""
        paths = sorted(self.layout.store.glob("entries/[!.]*.json"))
        return {path: self.read_entry(path) for path in paths}

    def leftovers(self, needed: Container[str], oldest: float) -> Iterator[tuple[Path, str]]:
        """Yield the files that may be deleted, each with a code of the reason; entries first.

        An entry stays if its package (by SHA-512) is needed, or if it was used after `oldest`
        (epoch seconds). Files stay as long as an entry that stays names them.
        """
        kept: list[Built] = []
        for path, entry in self.entries().items():
            if entry is None or path != self.layout.store_entry(entry.key):
                yield path, "leftover-store-damaged"
            elif entry.built.sha512 in needed or path.stat().st_mtime >= oldest:
                kept.append(entry.built)
            else:
                yield path, "leftover-store-entry"
        paths = self.paths(kept)
        for folder in ("outputs", "packages", "inputs", "layers", "incoming", "entries"):
            for path in sorted((self.layout.store / folder).glob("*")):
                is_entry = folder == "entries" and not path.name.startswith(".")
                if path not in paths and not is_entry:
                    yield path, "leftover-store-file"

    def paths(self, packages: Iterable[Built]) -> frozenset[Path]:
        """The files of packages: what must stay for them to be used."""
        paths: set[Path] = set()
        for built in packages:
            paths.add(self.layout.store_package(built.sha512))
            paths.add(self.layout.store_inputs(built.sha512))
            paths.add(self.layout.store_output(_output_digest(built)))
            if built.layer:
                paths.add(self.layout.store_layer(built.layer))
                paths.add(self.layout.store_listing(built.layer))
                paths.add(self.layout.store_verified(built.layer))
        return frozenset(paths)

    def mark_used(self, keys: Iterable[str]) -> None:
        """Set the times of entries to now: gc keeps them by their age."""
        moment = clock.now()
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.layout.store_entry(key), (moment, moment))

    def next_build_id(self, cpv: str, highest: int = 0) -> int:
        """Give out a build number of a CPV that this site has never used.

        `highest` is the highest one that was published (see `highest_builds`). The number is taken
        even if the build fails. Raises NotTrusted if there is none left below MOST_BUILDS.
        """
        name = gpkg.parse_cpv(cpv)
        folder = self.layout.store_numbers(name.category, f"{name.package}-{name.version}")
        folder.mkdir(parents=True, exist_ok=True)
        given = (int(each) for each in os.listdir(folder) if _NUMBER.fullmatch(each))  # noqa: PTH208
        number = max(highest, *given, 0) + 1
        while number < MOST_BUILDS:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL, 0o644))
                sync_folder(folder)
                return number
            number += 1
        raise NotTrusted("build-numbers-used-up", package=cpv, path=folder)

    def remember_inputs(self, chroot: str, cpv: str, slot: str, inputs: Mapping[str, Any]) -> None:
        """Keep the own inputs of a package's newest build in a chroot, to explain the next one."""
        data = {"cpv": cpv, "inputs": dict(inputs)}
        text = json.dumps(data, indent=1, sort_keys=True) + "\n"
        write_atomic(self._own_inputs(chroot, cpv, slot), text)

    def last_inputs(self, chroot: str, cpv: str, slot: str) -> tuple[str, dict[str, Any]] | None:
        """The CPV and own inputs of the newest build of a package, of any version, in its slot.

        None if there are none, or they cannot be read: they only explain.
        """
        raw = _small_file(self._own_inputs(chroot, cpv, slot))
        with contextlib.suppress(ValueError, RecursionError):
            match json.loads(raw or b"null"):
                case {"cpv": str(earlier), "inputs": dict(inputs)}:
                    return earlier, inputs
        return None

    def keep_inputs(self, built: Built, inputs: Mapping[str, Any]) -> None:
        """Keep the inputs that a package was built from, for as long as the package stays."""
        path = self.layout.store_inputs(built.sha512)
        if not path.exists():  # else another build came out equal
            write_atomic(path, json.dumps(dict(inputs), indent=1, sort_keys=True) + "\n")

    def inputs_of(self, sha512: str) -> dict[str, Any] | None:
        """The inputs that a package was built from; None if they are not known or unreadable."""
        if _HEX.fullmatch(sha512):
            with contextlib.suppress(ValueError, RecursionError):
                match json.loads(_small_file(self.layout.store_inputs(sha512)) or b"null"):
                    case dict(inputs):
                        return inputs
        return None

    def _own_inputs(self, chroot: str, cpv: str, slot: str) -> Path:
        name = gpkg.parse_cpv(cpv)
        return self.layout.own_inputs(chroot, name.category, name.package, slot)


def highest_builds(paths: Iterable[str]) -> dict[str, int]:
    """The highest build number of each CPV among paths of packages below a binhost.

    Numbers that this store never gives out do not count: nothing can get them again.
    """
    highest: dict[str, int] = {}
    for path in paths:
        category, _, rest = path.partition("/")
        pf, _, number = rest.partition("/")[2].removesuffix(".gpkg.tar").rpartition("-")
        if _NUMBER.fullmatch(number):
            cpv = f"{category}/{pf}"
            highest[cpv] = max(highest.get(cpv, 0), int(number))
    return highest


def _described(key: str, product: Product, package: Path, contents: Contents) -> Built:
    """The facts of a package, after it was compared with what was to be built."""
    planned = product.planned
    claims.check(planned, product.build_id, contents.metadata)
    built = Built(
        cpv=planned.cpv,
        repo=planned.repo,
        build_id=product.build_id,
        identity=contents.identity,
        client_digest=contents.client_digest,
        sha512=sha512(package),
        size=package.stat().st_size,
        layer="",
        stanza=product.stanza,
        seconds=float(product.seconds),
        built=int(clock.now()),
        key=key,
        inputs=product.inputs,
    )
    claims.check_stanza(built, contents.metadata)
    return built


def _output_digest(built: Built) -> str:
    """A digest of all that makes two packages the same."""
    same = [built.cpv, built.repo, built.identity, built.client_digest]
    return hashlib.sha256(json.dumps(same).encode()).hexdigest()


def _layer_id(listing: Path) -> str:
    """The id of the layer that a listing describes: the digest of the listing's lines."""
    with listing.open("rb") as stream:
        return stream.readline(100).decode("ascii", "replace").strip()[:32]


def _rename_new(source: Path, target: Path) -> None:
    """Rename a folder; raises FileExistsError if there is one that is not empty."""
    try:
        source.rename(target)
    except OSError as error:
        if target.is_dir():
            raise FileExistsError(target) from error
        raise


def _inodes_or_none(folder: Path) -> bytes | None:
    try:
        return _inodes(folder)
    except OSError:
        return None


def _inodes(folder: Path) -> bytes:
    """A digest of the inodes of a tree: everything of them that a change of a file changes."""
    sha256 = hashlib.sha256()
    waiting = [os.fsencode(folder)]
    while waiting:
        place = waiting.pop()
        sha256.update(_inode(place, os.lstat(place)))
        with os.scandir(place) as entries:
            for each in sorted(entries, key=lambda entry: entry.name):
                if each.is_dir(follow_symlinks=False):
                    waiting.append(each.path)
                else:
                    sha256.update(_inode(each.name, each.stat(follow_symlinks=False)))
    return sha256.hexdigest().encode()


def _inode(name: bytes, status: os.stat_result) -> bytes:
    """The line of one file; a folder has its whole path, and a new one ends its parent's files."""
    numbers = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_ino)
    times = (status.st_mtime_ns, status.st_ctime_ns, status.st_rdev)
    return b"%s\0%s\n" % (name, repr(numbers + times).encode())


def _small_file(path: Path) -> bytes | None:
    """The content of a file of the store; None if it is missing, no plain file, or too large."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:  # noqa: PTH123
            raw = stream.read(_ENTRY_LIMIT + 1)
    except OSError:
        return None
    return raw if len(raw) <= _ENTRY_LIMIT else None


def _parsed(kind: Any, raw: bytes, is_sound: Any) -> Any:
    """The dataclass that JSON has; None for anything else."""
    with contextlib.suppress(ValueError, BinmillError):
        value = _adapter(kind).validate_json(raw)
        return value if is_sound(value) else None
    return None


def _is_entry(entry: Entry) -> bool:
    return bool(_HEX.fullmatch(entry.key)) and _is_built(entry.built)


def _is_built(built: Built) -> bool:
    """Tell whether all fields can be used as names; raises NotTrusted for a malformed CPV."""
    digests = (built.identity, built.client_digest, built.sha512, built.key)
    layer = not built.layer or _HEX.fullmatch(built.layer)
    return bool(built.name and layer and all(map(_HEX.fullmatch, digests)))


def _render(value: Built | Entry) -> str:
    return json.dumps(asdict(value), indent=1, sort_keys=True) + "\n"


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    for each in {kind, Built}:
        each.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    return TypeAdapter(kind)
