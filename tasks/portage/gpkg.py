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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tasks.errors import NotTrusted
from tasks.system.gpgv import Role, verify_clearsigned

# categories, package names and versions (PMS 3.1 and 3.2)
_CATEGORY = r"[A-Za-z0-9_][A-Za-z0-9+_.-]*"
_PF = re.compile(
    r"(?P<pn>[A-Za-z0-9_][A-Za-z0-9+_-]*?)-"
    r"(?P<pvr>[0-9]+(\.[0-9]+)*[a-z]?(_(alpha|beta|pre|rc|p)[0-9]*)*(-r[0-9]+)?)"
)
_METADATA_LIMIT = 64 << 20


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


def metadata(path: Path, role: Role | None = None) -> dict[str, str]:
    """Verify a GPKG and read its metadata, by Portage's key; raises NotTrusted.

    Every member is compared with the container's Manifest. With `role`, the Manifest must be
    clearsigned by one of the role's keys.
    """
    try:
        with tarfile.open(path, "r:") as container:
            members = _members(container)
            manifest = _read(container, members.pop("Manifest"))
            expected = _manifest(_signed(manifest, role) if role else manifest)
            # gpkg-1 is an empty file that marks the format; older containers do not list it
            for name in sorted(members.keys() - expected.keys() - {"gpkg-1"}):
                raise NotTrusted("gpkg-member-not-covered", file=path.name, member=name)
            for name, (size, digest) in expected.items():
                _check(container, members[name], size, digest)
            member = next(n for n in members if re.fullmatch(r"metadata\.tar(\.[a-z0-9]+)?", n))
            return _values(_decompress(_read(container, members[member]), member))
    except _archive_errors() as error:
        raise NotTrusted("gpkg-damaged", file=path.name, cause=str(error)) from error


def image_paths(path: Path) -> Iterator[str]:
    """The paths that a GPKG's image installs, without directories: absolute and normalised.

    The image is read as a stream, whatever its size. Raises NotTrusted if it cannot be read.
    """
    try:
        with tarfile.open(path, "r:") as container:
            members = _members(container)
            name = next(n for n in members if re.fullmatch(r"image\.tar(\.[a-z0-9]+)?", n))
            stream = container.extractfile(members[name])
            assert stream is not None  # noqa: S101
            with _open(stream, name) as plain, tarfile.open(fileobj=plain, mode="r|") as image:
                for member in image:
                    inside = member.name.partition("image/")[2]
                    if not member.isdir():
                        yield posixpath.normpath(f"/{inside.lstrip('/')}")
    except _archive_errors() as error:
        raise NotTrusted("gpkg-damaged", file=path.name, cause=str(error)) from error


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
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        zstandard.ZstdError,
    )


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
