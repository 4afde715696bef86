"""Identity of a built package: a digest of all that others can see of it, and of nothing else.

A package that is built again and has the same identity is the same package: what depends on it
need not be built again. The file itself always differs, as it has times and a build number.

The package is hostile: it is read as a stream, within limits, and never extracted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tarfile import TarInfo
from typing import Literal, NamedTuple

from tasks.portage import gpkg
from tasks.store import normalise

FORMAT = 1  # a change of what is in a digest; it makes every identity another one
_DEPENDENCIES = ("BDEPEND", "DEPEND", "IDEPEND", "PDEPEND", "RDEPEND")
_VISIBLE = ("EAPI", "PROVIDES", "REQUIRES", "SLOT", "repository", *_DEPENDENCIES)
# These decide whether a client takes a package, and who may have it; a build sees none of them.
_FOR_CLIENTS = ("CHOST", "IUSE", "KEYWORDS", "LICENSE", "PROPERTIES", "RESTRICT")
_CLIENT_PHASES = frozenset(
    ["config", "info", "postinst", "postrm", "preinst", "prerm", "pretend", "setup"]
)
# declare -f prints a function so; declare -p writes no line break into a value as it is
_FUNCTION = re.compile(rb"^[^\s\"'=$]+ \(\) *$", re.MULTILINE)
_TYPES = {
    "0": "file",
    "\0": "file",
    "1": "file",
    "2": "link",
    "3": "character device",
    "4": "block device",
    "5": "directory",
    "6": "fifo",
}
# Headers of an entry that are fields of its TarInfo, and those that say when.
_FIELDS = frozenset(["path", "linkpath", "size", "uid", "gid", "uname", "gname", "hdrcharset"])
_NOT_ATTRIBUTES = _FIELDS | {"mtime", "atime", "ctime"}


class File(NamedTuple):
    """A file of an image: everything that a client's file gets from it, except its time.

    `content` is a digest for a file, the target of a link, the number of a device. `attributes` are
    names and values of extended attributes. `linked` is the first of all names of a file that has
    several, else "".
    """

    type: str
    mode: int
    uid: int
    gid: int
    owner: str
    group: str
    content: str
    attributes: tuple[tuple[str, str], ...]
    linked: str = ""


@dataclass(frozen=True)
class Contents:
    """The normalised contents of a package.

    `metadata` has all of it, as it is in the package; `files` is the image by path. `visible` is
    what builds see of the metadata, `for_clients` what only clients do: it decides nothing about
    other packages.
    """

    metadata: Mapping[str, str]
    files: Mapping[str, File]
    visible: Mapping[str, str]
    for_clients: Mapping[str, str]

    @cached_property
    def identity(self) -> str:
        """A digest of the files and the visible metadata, in hex."""
        sha256 = hashlib.sha256(f"{FORMAT}\n".encode())
        sha256.update(_line(sorted(self.visible.items())))
        for path in sorted(self.files):
            sha256.update(_line([path, *self.files[path]]))
        return sha256.hexdigest()

    @cached_property
    def client_digest(self) -> str:
        """A digest of what only clients see, in hex."""
        return hashlib.sha256(_line(sorted(self.for_clients.items()))).hexdigest()


@dataclass(frozen=True)
class Difference:
    """A difference between two packages: the name of a file, or of a key of the metadata.

    `fields` names what differs ("content", "mode", ...; "value" for metadata), or is ("added",) or
    ("removed",).
    """

    part: Literal["image", "metadata"]
    name: str
    fields: tuple[str, ...]


def identity(package: Path) -> str:
    """The identity of a package, in hex; raises NotTrusted for one that is damaged or hostile."""
    return read(package).identity


def read(package: Path) -> Contents:
    """Verify a package and read its contents; raises NotTrusted for a damaged or hostile one."""
    metadata = gpkg.full_metadata(package)
    with gpkg.explained_damage(package):
        return Contents(
            metadata.values, _files(package), _visible(metadata.values), _for_clients(metadata)
        )


def differences(old: Contents, new: Contents) -> tuple[Difference, ...]:
    """The differences between two packages: metadata, then files, sorted by name."""
    return (*_metadata_differences(old, new), *_image_differences(old, new))


def _metadata_differences(old: Contents, new: Contents) -> Iterator[Difference]:
    before, after = ({**each.visible, **each.for_clients} for each in (old, new))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key, "") != after.get(key, ""):
            yield Difference("metadata", key, ("value",))


def _image_differences(old: Contents, new: Contents) -> Iterator[Difference]:
    for path in sorted(old.files.keys() | new.files.keys()):
        before, after = old.files.get(path), new.files.get(path)
        if before is None:
            yield Difference("image", path, ("added",))
        elif after is None:
            yield Difference("image", path, ("removed",))
        elif before != after:
            pairs = zip(File._fields, before, after, strict=True)
            yield Difference("image", path, tuple(name for name, a, b in pairs if a != b))


def _line(data: object) -> bytes:
    """Plain data as one line; different data give different lines."""
    return json.dumps(data).encode() + b"\n"


def _visible(values: Mapping[str, str]) -> dict[str, str]:
    visible = {key: " ".join(values.get(key, "").split()) for key in _VISIBLE}
    use = set(values.get("USE", "").split())
    effective = values.get("IUSE_EFFECTIVE")
    if effective is not None:  # without it, as in old packages, the whole of USE
        use &= set(effective.split())
    phases = sorted(set(values.get("DEFINED_PHASES", "").split()))
    return {**visible, "USE": " ".join(sorted(use)), "DEFINED_PHASES": " ".join(phases)}


def _for_clients(metadata: gpkg.Metadata) -> dict[str, str]:
    """Metadata for clients, and a digest of the functions that they run when they merge.

    The ebuild's and eclasses' functions are in it only if a phase runs on clients. Variables of the
    environment are not: they have paths and times of the build.
    """
    values = {key: " ".join(metadata.values.get(key, "").split()) for key in _FOR_CLIENTS}
    functions = b""
    if _CLIENT_PHASES & set(metadata.values.get("DEFINED_PHASES", "").split()):
        first = _FUNCTION.search(metadata.environment)
        functions = metadata.environment[first.start() :] if first else metadata.environment
    return {**values, "functions": hashlib.sha256(functions).hexdigest()}


def _files(package: Path) -> dict[str, File]:
    """The image of a package, by path."""
    files: dict[str, File] = {}
    bytecode: dict[str, normalise.Bytecode] = {}
    source_times: dict[str, int] = {}
    names: dict[str, list[str]] = {}  # by the first name of a file in the archive, the others
    for path, header, stream in gpkg.image_entries(package):
        content = ""
        if header.islnk():
            target = gpkg.image_path(header.linkname)
            files[path] = _hard_link(header, files[target])
            names.setdefault(target, []).append(path)
            if target in bytecode:
                bytecode[path] = bytecode[target]
            continue
        if stream is not None and path.endswith(".pyc"):
            bytecode[path] = normalise.Bytecode(stream)
        elif stream is not None:
            content = normalise.digest(path, stream)
        if path.endswith(".py"):
            source_times[path] = int(header.mtime)
        files[path] = _file(header, content)
    for path, each in bytecode.items():
        time = source_times.get(normalise.source_of(path))
        files[path] = files[path]._replace(content=each.content(time))
    for target, others in names.items():
        first = min(target, *others)
        for path in (target, *others):
            files[path] = files[path]._replace(linked=first)
    return files


def _file(header: TarInfo, content: str) -> File:
    type_ = _TYPES[header.type.decode("latin-1")]  # any other is an error, as a damaged one
    if type_ == "link":
        content = header.linkname
    elif type_.endswith("device"):
        content = f"{header.devmajor}:{header.devminor}"
    attributes = (each for each in header.pax_headers.items() if each[0] not in _NOT_ATTRIBUTES)
    return File(
        type=type_,
        mode=header.mode,
        uid=header.uid,
        gid=header.gid,
        owner=header.uname,
        group=header.gname,
        content=content,
        attributes=tuple(sorted(attributes)),
    )


def _hard_link(header: TarInfo, target: File) -> File:
    """Another name of a file, with its content; raises ValueError for other attributes.

    tarfile applies those of the last name to all, so the result would depend on the order.
    """
    if (header.mode, header.uid, header.gid) != (target.mode, target.uid, target.gid):
        raise ValueError(f"a hard link with other attributes: {header.name}")
    if target.type != "file":
        raise ValueError(f"a hard link to no file: {header.name}")
    return target._replace(owner=header.uname, group=header.gname)
