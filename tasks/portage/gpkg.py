"""GPKG files (GLEP 78): verification of the container, its metadata and the paths of its image.

A .gpkg.tar is a plain tar of a compressed metadata archive, a compressed image and a Manifest with
the digests of both. It is read here without any chroot.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import posixpath
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from tasks.errors import NotTrusted
from tasks.system.gpgv import Role, verify_clearsigned

# categories, package names and versions (PMS 3.1 and 3.2)
_CATEGORY = r"[A-Za-z0-9_][A-Za-z0-9+_.-]*"
_PF = re.compile(
    r"(?P<pn>[A-Za-z0-9_][A-Za-z0-9+_-]*?)-"
    r"(?P<pvr>[0-9]+(\.[0-9]+)*[a-z]?(_(alpha|beta|pre|rc|p)[0-9]*)*(-r[0-9]+)?)"
)
_METADATA_LIMIT = 64 << 20
_ENVIRONMENT_LIMIT = 64 << 20
# Of an image, unpacked: far more than any package has, so that a bomb ends with an error.
IMAGE_LIMIT = 64 << 30
ENTRIES_LIMIT = 1_000_000
_EXTENDED_LIMIT = 1 << 20  # bytes of an extended header, which tarfile reads at once
HEADERS_LIMIT = 512 << 20  # characters in the headers of an image, which its reader may keep
_READ_AHEAD = 1 << 20
_BUFFER = 16 << 10  # tarfile copies the rest of its buffer at every read
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True)
class Name:
    """A parsed CATEGORY/PF with its build number; paths of binpkgs come from here only."""

    category: str
    package: str
    version: str
    build_id: int

    @property
    def cp(self) -> str:
        return f"{self.category}/{self.package}"

    @property
    def cpv(self) -> str:
        return f"{self.category}/{self.package}-{self.version}"

    @property
    def path(self) -> str:
        """The path below a binhost, as of FEATURES=binpkg-multi-instance."""
        file = f"{self.package}-{self.version}-{self.build_id}.gpkg.tar"
        return f"{self.category}/{self.package}/{file}"


def parse(category: str, pf: str, build_id: str) -> Name:
    """Parse a name; raises NotTrusted for anything that is not one (`..`, `/`, ...)."""
    match = _PF.fullmatch(pf)
    # a PN must not end in something like a version (PMS 3.1.2): foo-1-2
    if match is None or _PF.fullmatch(match["pn"]) or not re.fullmatch(_CATEGORY, category):
        raise NotTrusted("package-name-malformed", category=category, pf=pf)
    if not re.fullmatch(r"[1-9][0-9]{0,8}", build_id):
        raise NotTrusted("build-id-malformed", package=f"{category}/{pf}", build_id=build_id)
    return Name(category, match["pn"], match["pvr"], int(build_id))


def parse_cpv(cpv: str, build_id: str = "1") -> Name:
    """A name from CATEGORY/PF; raises NotTrusted for anything else."""
    category, _, pf = cpv.partition("/")
    return parse(category, pf, build_id)


@dataclass(frozen=True)
class Metadata:
    """The metadata of a package by Portage's key, and the environment that its build left.

    `environment` is a script of variables and functions, as bash prints them; b"" if there is none.
    """

    values: Mapping[str, str]
    environment: bytes


def metadata(path: Path, role: Role | None = None) -> dict[str, str]:
    """Verify a GPKG and read its metadata, by Portage's key; raises NotTrusted.

    Every member is compared with the container's Manifest. With `role`, the Manifest must be
    clearsigned by one of the role's keys.
    """
    with explained_damage(path):
        return _values(_verified_metadata(path, role))


def full_metadata(path: Path) -> Metadata:
    """Verify a GPKG and read its metadata and environment; raises NotTrusted."""
    with explained_damage(path):
        archive = _verified_metadata(path, None)
        return Metadata(_values(archive), _environment(archive))


@contextmanager
def explained_damage(path: Path) -> Iterator[None]:
    """Raise NotTrusted, which names the package, for what the readers of the block raise."""
    try:
        yield
    except _archive_errors() as error:
        raise NotTrusted("gpkg-damaged", file=path.name, cause=str(error)) from error


def _verified_metadata(path: Path, role: Role | None) -> bytes:
    """The metadata archive of a GPKG, unpacked, after every member was verified."""
    with tarfile.open(path, "r:", tarinfo=_LimitedEntry) as container:
        members = _members(container)
        manifest = _read(container, members.pop("Manifest"))
        expected = _manifest(_signed(manifest, role) if role else manifest)
        # gpkg-1 is an empty file that marks the format; older containers do not list it
        for name in sorted(members.keys() - expected.keys() - {"gpkg-1"}):
            raise NotTrusted("gpkg-member-not-covered", file=path.name, member=name)
        for name, (size, digest) in expected.items():
            _check(container, members[name], size, digest)
        packed = next(n for n in members if re.fullmatch(r"metadata\.tar(\.[a-z0-9]+)?", n))
        return _decompress(_read(container, members[packed]), packed)


def image_paths(path: Path) -> Iterator[str]:
    """The paths that a GPKG's image installs, without directories: absolute and normalised.

    The image is read as a stream, whatever its size. Raises NotTrusted if it cannot be read.
    """
    with explained_damage(path), _image(path) as image:
        for member in image:
            inside = member.name.partition("image/")[2]
            if not member.isdir():
                yield posixpath.normpath(f"/{inside.lstrip('/')}")


def image_entries(path: Path) -> Iterator[tuple[str, tarfile.TarInfo, IO[bytes] | None]]:
    """Yield path, header and content of each entry of a GPKG's image, in its order.

    The content (None for what is no file) must be read before the next entry is asked for. It is
    read as Portage reads it, by tarfile, but strictly: nothing may follow the archive, no name may
    occur twice or lead out of the image, and a bomb ends with an error. Errors are those of
    tarfile and the decompressors; read within `explained_damage`.
    """
    names: set[str] = set()
    length = 0
    with _image(path) as image:
        for member in image:
            setattr(image, "members", [])  # noqa: B010 - untyped; else it keeps all headers
            name = image_path(member.name)
            if name in names or len(names) == ENTRIES_LIMIT:
                raise tarfile.ReadError(f"duplicate entry, or too many: {name}")
            names.add(name)
            length += len(name) + len(member.linkname) + sum(map(len, member.pax_headers.values()))
            if length > HEADERS_LIMIT:
                raise tarfile.ReadError("its headers are too large")
            yield name, member, image.extractfile(member) if member.isreg() else None
        stream: Any = image.fileobj
        while rest := stream.read(_READ_AHEAD):
            if rest.strip(b"\0"):
                raise tarfile.ReadError("data after the end of the image")


@contextmanager
def _image(path: Path) -> Iterator[tarfile.TarFile]:
    """The image of a GPKG as a stream, whatever its size."""
    with tarfile.open(path, "r:", tarinfo=_LimitedEntry) as container:
        members = _members(container)
        packed = next((n for n in members if re.fullmatch(r"image\.tar(\.[a-z0-9]+)?", n)), None)
        if packed is None:
            raise tarfile.ReadError("it has no image")
        stream = container.extractfile(members[packed])
        assert stream is not None  # noqa: S101
        with _open(stream, packed) as plain:
            limited = io.BufferedReader(_Limited(plain, IMAGE_LIMIT), _READ_AHEAD)
            with tarfile.open(
                fileobj=limited, mode="r|", bufsize=_BUFFER, tarinfo=_LimitedEntry
            ) as image:
                yield image


def image_path(name: str) -> str:
    """The path on a client of an entry of an image; raises ReadError for one out of the image."""
    top, *parts = name.rstrip("/").split("/")
    if top != "image" or any(part in ("", ".", "..") for part in parts):
        raise tarfile.ReadError(f"unexpected path in the image: {name}")
    return "/" + "/".join(parts)


class _Limited(io.RawIOBase):
    """A stream that ends with an error after `limit` bytes."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"more than {self._limit} bytes, unpacked")
        buffer[: len(data)] = data
        return len(data)


class _LimitedEntry(tarfile.TarInfo):
    """A header that is refused where tarfile would take any amount of memory for it.

    tarfile ends silently at a header that is damaged; here it is an error.
    """

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _LimitedEntry:  # the name of its parameter
        try:
            return super().fromtarfile(tarfile)
        except _DAMAGED_HEADER as error:
            raise _read_error(str(error)) from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENSIONS and self.size > _EXTENDED_LIMIT:
            raise tarfile.ReadError("an extended header is too large")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_sparse()
        parent: Any = super()
        entry: tarfile.TarInfo = parent._proc_member(archive)
        return entry

    def _refuse_sparse(self, *_: object) -> NoReturn:
        raise tarfile.ReadError("a sparse file")  # it could claim any size

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


def _read_error(cause: str) -> tarfile.ReadError:
    return tarfile.ReadError(cause)


_DAMAGED_HEADER: Any = (
    tarfile.InvalidHeaderError,  # type: ignore[attr-defined,unused-ignore]
    tarfile.TruncatedHeaderError,  # type: ignore[attr-defined,unused-ignore]
)


def _members(container: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """The members by name, without the container's top directory.

    Only regular files, each name once: of two with the same name, a client might read the other. A
    sparse member could claim any size.
    """
    members: dict[str, tarfile.TarInfo] = {}
    for member in container:
        name = member.name.rsplit("/", 1)[-1]
        if not member.isreg() or member.issparse() or name in members:
            raise NotTrusted("gpkg-member-unexpected", file=_file(container), member=member.name)
        members[name] = member
    return members


def _file(container: tarfile.TarFile) -> str:
    return Path(str(container.name)).name


def _read(container: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _METADATA_LIMIT:
        raise NotTrusted("gpkg-metadata-too-large", file=_file(container), member=member.name)
    stream = container.extractfile(member)
    assert stream is not None  # noqa: S101
    return stream.read()


def _signed(manifest: bytes, role: Role) -> bytes:
    with tempfile.TemporaryDirectory(prefix="binmill-gpkg-") as folder:
        path = Path(folder, "Manifest")
        path.write_bytes(manifest)
        return verify_clearsigned(role, path)[1].encode()


def _manifest(text: bytes) -> Mapping[str, tuple[int, str]]:
    """DATA lines: name, size, then pairs of algorithm and digest (GLEP 74)."""
    digests: dict[str, tuple[int, str]] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words[:1] == ["DATA"] and "SHA512" in words:
            if words[1] in digests:
                raise NotTrusted("gpkg-manifest-duplicate", member=words[1])
            digests[words[1]] = (int(words[2]), words[words.index("SHA512") + 1])
    return digests


def _check(container: tarfile.TarFile, member: tarfile.TarInfo, size: int, digest: str) -> None:
    stream = container.extractfile(member)
    assert stream is not None  # noqa: S101
    actual = hashlib.file_digest(stream, "sha512").hexdigest()  # type: ignore[arg-type]
    if member.size != size or actual != digest:
        raise NotTrusted("gpkg-member-differs", file=_file(container), member=member.name)


def _decompress(data: bytes, name: str) -> bytes:
    with _open(io.BytesIO(data), name) as stream:
        return stream.read(_METADATA_LIMIT)


def _open(stream: IO[bytes], name: str) -> IO[bytes]:
    """Decompress a member of a container."""
    suffix = name.rsplit(".", 1)[-1]
    if suffix == "tar":
        return stream
    if suffix == "zst":
        import zstandard

        unpacker = zstandard.ZstdDecompressor(max_window_size=_METADATA_LIMIT)
        reader: IO[bytes] = unpacker.stream_reader(stream, read_across_frames=True)
        return reader
    openers = {"xz": lzma.open, "gz": gzip.open, "bz2": bz2.open}
    plain: IO[bytes] = openers[suffix](stream, "rb")  # type: ignore[operator]
    return plain


def _archive_errors() -> tuple[type[Exception], ...]:
    """The exceptions that tarfile and the decompressors raise for damaged files."""
    import zstandard

    return (
        KeyError,
        IndexError,
        ValueError,
        StopIteration,
        EOFError,
        OSError,
        OverflowError,  # an infinite time
        RecursionError,  # extended headers of extended headers
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        zstandard.ZstdError,
    )


def _environment(archive: bytes) -> bytes:
    """The unpacked environment.bz2 of a metadata archive; raises ValueError if it is too large."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as inner:
        for member in inner:
            if member.isreg() and member.name.rsplit("/", 1)[-1] == "environment.bz2":
                stream = inner.extractfile(member)
                assert stream is not None  # noqa: S101
                unpacker = bz2.BZ2Decompressor()
                text = unpacker.decompress(stream.read(), _ENVIRONMENT_LIMIT)
                if not unpacker.eof:
                    raise ValueError("environment.bz2 is too large, or not whole")
                return text
    return b""


def _values(archive: bytes) -> dict[str, str]:
    values = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as inner:
        for member in inner:
            key = member.name.rsplit("/", 1)[-1]
            if member.isreg() and member.size <= 1 << 20 and re.fullmatch(r"[A-Za-z_]+", key):
                stream = inner.extractfile(member)
                assert stream is not None  # noqa: S101
                values[key] = stream.read().decode("utf-8", "replace").strip("\n")
    return values
