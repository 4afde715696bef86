"""GPKG containers: malformed names and damaged or hostile packages."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from tasks.errors import NotTrusted
from tasks.portage.gpkg import Name, metadata, parse
from tests.kit.packages import PACKERS, VALUES, gpkg, manifest, parts, tar
from tests.kit.refused import refused


@pytest.mark.parametrize(
    ("category", "pf", "package", "version"),
    [
        ("app-misc", "hello-2.10", "hello", "2.10"),
        ("app-misc", "hello-2.10-r1", "hello", "2.10-r1"),
        ("x11-libs", "gtk+-3.24.38", "gtk+", "3.24.38"),
        ("dev-libs", "libsigc++-2.12.1", "libsigc++", "2.12.1"),
        ("media-libs", "x264-0.0.20231114", "x264", "0.0.20231114"),
        ("sys-libs", "db-5.3.28-r9", "db", "5.3.28-r9"),
        ("dev-lang", "python-3.13.0_beta2_p1-r3", "python", "3.13.0_beta2_p1-r3"),
        ("dev-libs", "openssl-1.1.1w", "openssl", "1.1.1w"),
        ("app-text", "docbook-xml-dtd-4.1.2-r7", "docbook-xml-dtd", "4.1.2-r7"),
        ("media-fonts", "font-bh-100dpi-1.0.3", "font-bh-100dpi", "1.0.3"),
        ("a.b+c_d", "foo-1foo-2", "foo-1foo", "2"),
        ("_x", "_y-0", "_y", "0"),
        ("virtual", "libc-9999", "libc", "9999"),
    ],
)
def test_name_is_parsed(category: str, pf: str, package: str, version: str) -> None:
    name = parse(category, pf, "12")
    assert name == Name(category, package, version, 12)
    assert name.cpv == f"{category}/{pf}"
    assert name.path == f"{category}/{package}/{pf}-12.gpkg.tar"


@pytest.mark.parametrize(
    ("category", "pf", "build"),
    [
        ("..", "hello-1", "1"),
        (".", "hello-1", "1"),
        (".git", "hello-1", "1"),
        ("-x", "hello-1", "1"),
        ("", "hello-1", "1"),
        ("app/misc", "hello-1", "1"),
        ("app misc", "hello-1", "1"),
        ("app-misc\n", "hello-1", "1"),
        ("app-misc", "../hello-1", "1"),
        ("app-misc", "..-1", "1"),
        ("app-misc", "a/b-1", "1"),
        ("app-misc", "hello", "1"),
        ("app-misc", "hello-", "1"),
        ("app-misc", "-hello-1", "1"),
        ("app-misc", "hello -1", "1"),
        ("app-misc", "hello-1\n", "1"),
        ("app-misc", "hello-1.", "1"),
        ("app-misc", "hello-1.2a.3", "1"),
        ("app-misc", "hello-1_zeta2", "1"),
        ("app-misc", "hello-1-r", "1"),
        ("app-misc", "hello-1 -r1", "1"),
        ("app-misc", "hello-\u0661", "1"),
        ("app-misc", "hello-1-2", "1"),
        ("app-misc", "hello-1a-2", "1"),
        ("app-misc", "hello-1", ""),
        ("app-misc", "hello-1", "0"),
        ("app-misc", "hello-1", "01"),
        ("app-misc", "hello-1", "-1"),
        ("app-misc", "hello-1", "1\n"),
        ("app-misc", "hello-1", "1/../2"),
        ("app-misc", "hello-1", "\u0661"),
        ("app-misc", "hello-1", "1" * 10),
    ],
)
def test_malformed_name_is_refused(category: str, pf: str, build: str) -> None:
    code = "package-name-malformed" if build == "1" else "build-id-malformed"
    with refused(NotTrusted, code):
        parse(category, pf, build)


@pytest.mark.parametrize("suffix", PACKERS)
def test_metadata_is_read_with_every_compression(tmp_path: Path, suffix: str) -> None:
    assert metadata(gpkg(tmp_path / "x.gpkg.tar", parts(suffix=suffix))) == VALUES


def test_value_of_several_lines_keeps_them(tmp_path: Path) -> None:
    values = {**VALUES, "NEEDED": "a\n\nb", "odd name": "x", "x.ebuild": "y"}
    read = metadata(gpkg(tmp_path / "x.gpkg.tar", values=values))
    assert read == {**VALUES, "NEEDED": "a\n\nb"}


def test_metadata_in_several_frames_is_read_whole(tmp_path: Path) -> None:
    plain = tar([(f"metadata/{key}", f"{value}\n".encode()) for key, value in VALUES.items()])
    pack = zstandard.ZstdCompressor().compress
    members = [("gpkg-1", b""), ("metadata.tar.zst", pack(plain[:700]) + pack(plain[700:]))]
    assert metadata(gpkg(tmp_path / "x.gpkg.tar", members)) == VALUES


@pytest.mark.parametrize("which", ["metadata.tar.zst", "image.tar.zst", "gpkg-1"])
@pytest.mark.parametrize("how", ["flipped", "longer", "shorter"])
def test_member_that_differs_is_refused(tmp_path: Path, which: str, how: str) -> None:
    good = parts()
    listed = manifest(good)

    def damaged(data: bytes) -> bytes:
        if how == "flipped" and data:
            return data[:-1] + bytes([data[-1] ^ 1])
        return data[:-1] if how == "shorter" and data else data + b"\0"

    bad = [(name, damaged(data) if name == which else data) for name, data in good]
    with refused(NotTrusted, "gpkg-member-differs", file="x.gpkg.tar", member=f"top/{which}"):
        metadata(gpkg(tmp_path / "x.gpkg.tar", bad, listed=listed))


def test_flipped_byte_anywhere_is_detected(tmp_path: Path) -> None:
    path = gpkg(tmp_path / "x.gpkg.tar")
    whole = path.read_bytes()
    with tarfile.open(path) as container:
        members = [m for m in container if m.name.endswith(".zst")]
    places = [m.offset_data + step for m in members for step in range(0, m.size, 7)]
    assert len(places) > 20
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x20]) + whole[place + 1 :])
        with pytest.raises(NotTrusted):
            metadata(path)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 1024, 2000, 3000])
def test_truncated_package_is_refused(tmp_path: Path, length: int) -> None:
    path = gpkg(tmp_path / "x.gpkg.tar")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(NotTrusted):
        metadata(path)


_ENTRY = manifest(parts())


@pytest.mark.parametrize(
    "listed",
    [
        b"",
        b"DATA\n",
        b"DATA metadata.tar.zst x SHA512 y\n",
        b"DATA metadata.tar.zst 1 SHA512\n",
        b"DATA SHA512\n",
        b"\xff\xfe\n",
        b"".join(line + b"\n" for line in _ENTRY.splitlines() if b"metadata" not in line),
        b"".join(line + b"\n" for line in _ENTRY.splitlines() if b"image" not in line),
        _ENTRY + _ENTRY,
        _ENTRY + manifest([("nowhere", b"")]),
        _ENTRY.replace(b" SHA512 ", b" SHA1 "),
    ],
)
def test_manifest_that_does_not_cover_everything_is_refused(tmp_path: Path, listed: bytes) -> None:
    with pytest.raises(NotTrusted):
        metadata(gpkg(tmp_path / "x.gpkg.tar", listed=listed))


def test_package_without_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gpkg.tar"
    path.write_bytes(tar([(f"top/{name}", data) for name, data in parts()]))
    with refused(NotTrusted, "gpkg-damaged", file="x.gpkg.tar"):
        metadata(path)


def test_package_without_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotTrusted):
        metadata(gpkg(tmp_path / "x.gpkg.tar", [m for m in parts() if "metadata" not in m[0]]))


@pytest.mark.parametrize("name", ["extra", "Manifest.sig", "../../escape", "other/metadata.tar.xz"])
def test_member_that_the_manifest_does_not_cover_is_refused(tmp_path: Path, name: str) -> None:
    good = parts()
    with refused(NotTrusted, "gpkg-member-not-covered", member=name.rsplit("/", 1)[-1]):
        metadata(gpkg(tmp_path / "x.gpkg.tar", [*good, (name, b"x")], listed=manifest(good)))


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """A client might read the first one, and this project the last."""
    good, evil = parts(), parts({**VALUES, "CATEGORY": "sys-apps"})
    path = tmp_path / "x.gpkg.tar"
    for order in ([("a/", evil), ("b/", good)], [("b/", good), ("a/", evil)]):
        members = [(f"{top}{n}", d) for top, some in order for n, d in some]
        path.write_bytes(tar([*members, ("b/Manifest", manifest(good))]))
        with refused(NotTrusted, "gpkg-member-unexpected"):
            metadata(path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_member_that_is_no_regular_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as archive:
        odd = tarfile.TarInfo("top/odd")
        odd.type, odd.linkname = kind, "/etc/shadow"
        archive.addfile(odd)
    path = gpkg(tmp_path / "x.gpkg.tar")
    path.write_bytes(out.getvalue()[:512] + path.read_bytes())
    with refused(NotTrusted, "gpkg-member-unexpected"):
        metadata(path)


def test_sparse_member_of_a_huge_size_is_refused(tmp_path: Path) -> None:
    """Hashing it would never end: 8 EiB of zeros in half a kilobyte."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        huge = tarfile.TarInfo("top/GNUSparseFile.0/image.tar.zst")
        huge.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,0",
            "GNU.sparse.size": str(1 << 62),
            "GNU.sparse.name": "top/image.tar.zst",
        }
        archive.addfile(huge)
    path = tmp_path / "x.gpkg.tar"
    path.write_bytes(out.getvalue())
    with refused(NotTrusted, "gpkg-damaged"):
        metadata(path)


def test_huge_size_in_a_header_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("top/Manifest")
    header.size = 1 << 40
    path = tmp_path / "x.gpkg.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    with pytest.raises(NotTrusted):
        metadata(path)


def test_bomb_is_not_decompressed_beyond_the_limit(tmp_path: Path) -> None:
    values = [("metadata/CATEGORY", b"x\n"), ("metadata/BIG", b"\0" * (65 << 20))]
    members = [("gpkg-1", b""), ("metadata.tar.zst", PACKERS[".zst"](tar(values)))]
    path = gpkg(tmp_path / "x.gpkg.tar", members)
    assert path.stat().st_size < 100_000
    with refused(NotTrusted, "gpkg-damaged"):
        metadata(path)


@pytest.mark.parametrize("suffix", [".zst", ".xz", ".gz", ".bz2", ".lz", ".sh"])
def test_metadata_in_another_format_than_its_suffix_is_refused(tmp_path: Path, suffix: str) -> None:
    members = [("gpkg-1", b""), (f"metadata.tar{suffix}", b"not compressed at all")]
    with refused(NotTrusted, "gpkg-damaged"):
        metadata(gpkg(tmp_path / "x.gpkg.tar", members))


def test_directory_or_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with refused(NotTrusted, "gpkg-damaged"):
            metadata(path)
