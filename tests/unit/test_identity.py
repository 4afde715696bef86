"""Identity of packages: the same for two builds of the same, another one for any true difference.

Packages are hostile, too: bombs and malformed archives end with an error.
"""

from __future__ import annotations

import gzip
import io
import marshal
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import NotTrusted
from tasks.portage import gpkg
from tasks.store.identity import Difference, differences, identity, read
from tests.kit.packages import PACKERS, VALUES, ImageFile, built_package, image
from tests.kit.refused import refused

ENVIRONMENT = b'declare -x CFLAGS="-O2"\npkg_postinst () \n{ \n    elog "hello"\n}\n'
HELLO = ImageFile("/usr/bin/hello", b"#!/bin/sh\n", mode=0o755)
FILES = (
    ImageFile("/", kind=tarfile.DIRTYPE, mode=0o755),
    ImageFile("/usr", kind=tarfile.DIRTYPE, mode=0o755),
    HELLO,
    ImageFile("/usr/bin/hi", kind=tarfile.LNKTYPE, mode=0o755, target="/usr/bin/hello"),
    ImageFile("/usr/bin/hey", kind=tarfile.SYMTYPE, mode=0o777, target="hello"),
    ImageFile("/usr/fifo", kind=tarfile.FIFOTYPE),
    ImageFile("/usr/share/caf\u00e9", b"x", attributes={"SCHILY.xattr.user.a": "1"}),
)
ALL = {
    **VALUES,
    "EAPI": "8",
    "IUSE": "nls +doc",
    "IUSE_EFFECTIVE": "amd64 doc nls",
    "USE": "amd64 nls",
    "DEFINED_PHASES": "compile postinst",
    "RDEPEND": "sys-libs/zlib:0/1=",
    "PROVIDES": "x86_64: libhello.so.1",
    "REQUIRES": "x86_64: libc.so.6",
    "KEYWORDS": "~amd64",
    "LICENSE": "GPL-2",
    "BUILD_TIME": "1700000000",
    "SIZE": "10",
}


class Packages:
    """Writes packages, and reads the identity of each."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "x.gpkg.tar"

    def identity(
        self,
        files: Sequence[ImageFile] | bytes = FILES,
        values: Mapping[str, str] | None = None,
        suffix: str = ".zst",
    ) -> str:
        values = {**ALL, **(values or {})}
        return identity(built_package(self.path, files, values, suffix=suffix))

    def content(self, path: str, data: bytes, *more: ImageFile) -> str:
        """The identity of a package with one file."""
        return self.identity((ImageFile(path, data), *more))


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


def test_identity_is_that_of_another_build(packages: Packages) -> None:
    wanted = packages.identity()
    assert packages.identity([replace(each, mtime=1e9 + 0.5) for each in FILES]) == wanted
    assert packages.identity((*FILES[:2], *reversed(FILES[4:]), *FILES[2:4])) == wanted
    other = {"BUILD_TIME": "1", "BUILD_ID": "77", "SIZE": "5", "COUNTER": "3", "USE": "nls  amd64"}
    assert packages.identity(values=other) == wanted
    for suffix in PACKERS:
        assert packages.identity(suffix=suffix) == wanted
    plain = FILES[:-1]
    forms = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    assert len({packages.identity(image(plain, form)) for form in forms}) == 1


def test_identity_does_not_depend_on_the_first_name_of_a_file(packages: Packages) -> None:
    hello, hi = FILES[2:4]
    turned = (replace(hello, path="/usr/bin/hi"), replace(hi, path=hello.path, target=hi.path))
    assert packages.identity((*FILES[:2], *turned, *FILES[4:])) == packages.identity()


CHANGES: dict[str, Callable[[ImageFile], ImageFile]] = {
    "path": lambda f: replace(f, path="/usr/bin/Hello"),
    "content": lambda f: replace(f, data=b"#!/bin/sh "),
    "longer": lambda f: replace(f, data=f.data + b"\0"),
    "mode": lambda f: replace(f, mode=0o4755),
    "uid": lambda f: replace(f, uid=1),
    "gid": lambda f: replace(f, gid=1),
    "owner": lambda f: replace(f, owner="portage"),
    "group": lambda f: replace(f, group="portage"),
    "attribute": lambda f: replace(f, attributes={"SCHILY.xattr.security.capability": "x"}),
    "acl": lambda f: replace(f, attributes={"SCHILY.acl.access": "x"}),
    "directory": lambda f: replace(f, kind=tarfile.DIRTYPE, data=b""),
    "link": lambda f: replace(f, kind=tarfile.SYMTYPE, data=b"", target="x"),
    "link elsewhere": lambda f: replace(f, kind=tarfile.SYMTYPE, data=b"", target="y"),
    "device": lambda f: replace(f, kind=tarfile.CHRTYPE, data=b""),
}


def test_identity_differs_for_every_difference_of_a_file(packages: Packages) -> None:
    files = (FILES[0], HELLO, FILES[6])
    changed = [(FILES[0], change(HELLO), FILES[6]) for change in CHANGES.values()]
    other = [files, files[:2], (*files, FILES[5]), (*files, replace(HELLO, path="/usr/bin/hi"))]
    other.append((*files, FILES[3]))  # another name of the same file, not a copy of it
    found = [packages.identity(each) for each in (*other, *changed)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SLOT", "0/2"),
        ("EAPI", "9"),
        ("repository", "java"),
        ("RDEPEND", "sys-libs/zlib:0/2="),
        ("DEPEND", "a/b"),
        ("BDEPEND", "a/b"),
        ("IDEPEND", "a/b"),
        ("PDEPEND", "a/b"),
        ("PROVIDES", ""),
        ("REQUIRES", "x86_64: libc.so.6 libm.so.6"),
        ("USE", "amd64"),
        ("DEFINED_PHASES", "compile"),
    ],
)
def test_identity_differs_for_visible_metadata(packages: Packages, key: str, value: str) -> None:
    assert packages.identity(values={key: value}) != packages.identity()


def test_flag_that_is_no_flag_of_the_package_is_not_in_the_identity(packages: Packages) -> None:
    assert packages.identity(values={"USE": "amd64 nls elibc_glibc"}) == packages.identity()


@pytest.mark.parametrize("key", ["KEYWORDS", "LICENSE", "RESTRICT", "PROPERTIES", "IUSE", "CHOST"])
def test_metadata_for_clients_is_in_the_client_digest_alone(tmp_path: Path, key: str) -> None:
    one = read(built_package(tmp_path / "a", FILES, ALL))
    other = read(built_package(tmp_path / "b", FILES, {**ALL, key: "x"}))
    assert one.identity == other.identity
    assert one.client_digest != other.client_digest
    assert differences(one, other) == (Difference("metadata", key, ("value",)),)


def test_functions_that_run_on_clients_are_in_the_client_digest(tmp_path: Path) -> None:
    def digests(environment: bytes, phases: str) -> tuple[str, str]:
        values = {**ALL, "DEFINED_PHASES": phases}
        path = built_package(tmp_path / "a", FILES, values, environment=environment)
        contents = read(path)
        return contents.identity, contents.client_digest

    later = ENVIRONMENT.replace(b"-O2", b"-O3")  # a variable, as is SOURCE_DATE_EPOCH
    function = ENVIRONMENT.replace(b"hello", b"bye")
    assert digests(later, "postinst") == digests(ENVIRONMENT, "postinst")
    assert digests(function, "postinst")[0] == digests(ENVIRONMENT, "postinst")[0]
    assert digests(function, "postinst")[1] != digests(ENVIRONMENT, "postinst")[1]
    assert digests(function, "compile") == digests(ENVIRONMENT, "compile")


def test_differences_name_files_and_fields(tmp_path: Path) -> None:
    new = [*FILES[:2], replace(HELLO, data=b"x", mode=0o700), FILES[5], ImageFile("/z")]
    before = read(built_package(tmp_path / "a", FILES, ALL))
    after = read(built_package(tmp_path / "b", new, {**ALL, "SLOT": "2"}))
    assert differences(before, before) == ()
    assert differences(before, after) == (
        Difference("metadata", "SLOT", ("value",)),
        Difference("image", "/usr/bin/hello", ("mode", "content", "linked")),
        Difference("image", "/usr/bin/hey", ("removed",)),
        Difference("image", "/usr/bin/hi", ("removed",)),
        Difference("image", "/usr/share/caf\u00e9", ("removed",)),
        Difference("image", "/z", ("added",)),
    )


def archive(time: int, owner: int, *members: tuple[str, bytes]) -> bytes:
    """A static library, as ar(1) writes it without D."""
    parts = [b"!<arch>\n"]
    for name, data in members:
        head = f"{name:<16}{time:<12}{owner:<6}{owner:<6}{100644:<8}{len(data):<10}`\n"
        parts += [head.encode(), data, b"\n" * (len(data) % 2)]
    return b"".join(parts)


MEMBERS = (("/", b"\0\0\0\1abcd"), ("a.o/", b"odd"), ("b.o/", b"even"))
SOURCE_TIME = 1_700_000_000
SOURCE = ImageFile("/usr/lib/p/m.py", b"pass\n", mtime=SOURCE_TIME)


def bytecode(time: int, flags: int = 0) -> bytes:
    numbers = b"".join(n.to_bytes(4, "little") for n in (flags, time, 5))
    return b"\xa7\r\r\n" + numbers + marshal.dumps(compile("pass", "m.py", "exec"))


def test_times_in_libraries_gzip_and_bytecode_are_not_in_the_identity(packages: Packages) -> None:
    one, other = (packages.content("/a.a", archive(time, time, *MEMBERS)) for time in (0, 1234))
    assert one == other
    one, other = (packages.content("/a.gz", gzip.compress(b"x", mtime=t)) for t in (1, 1234))
    assert one == other
    for path in ("/usr/lib/p/__pycache__/m.cpython-311.opt-1.pyc", "/usr/lib/p/m.pyc"):
        one, other = (
            packages.content(path, bytecode(int(time)), replace(SOURCE, mtime=time))
            for time in (SOURCE_TIME, SOURCE_TIME + 5.75)
        )
        assert one == other


def test_bytecode_that_python_would_not_use_is_another_one(packages: Packages) -> None:
    path = "/usr/lib/p/__pycache__/m.cpython-311.pyc"
    fresh, stale, older, hashed = (
        packages.content(path, data, SOURCE)
        for data in (
            bytecode(SOURCE_TIME),
            bytecode(SOURCE_TIME + 1),
            bytecode(SOURCE_TIME + 2),
            bytecode(SOURCE_TIME, flags=1),
        )
    )
    alone = packages.content(path, bytecode(SOURCE_TIME))
    other = packages.content(path, bytecode(SOURCE_TIME + 1))
    assert len({fresh, stale, older, hashed, alone, other}) == 6


# A file, and the places of its bytes that only say when it was built.
_HEADERS = (8, 76, 140)  # of the members above
NORMALISED = {
    "/a.a": (
        archive(77, 7, *MEMBERS),
        {place + step for place in _HEADERS for step in range(16, 40)},
    ),
    "/a.gz": (gzip.compress(b"hello" * 9, mtime=77), set(range(4, 8))),
    "/a.tgz": (gzip.compress(b"hello" * 9, mtime=77), set(range(4, 8))),
    "/usr/lib/p/m.pyc": (bytecode(SOURCE_TIME), set[int]()),
    "/a.txt": (archive(77, 7, *MEMBERS), set[int]()),
}


@pytest.mark.parametrize("path", NORMALISED)
def test_any_other_flipped_byte_changes_the_identity(packages: Packages, path: str) -> None:
    """A normaliser hides no true difference, whatever it makes of a damaged file."""
    data, times = NORMALISED[path]
    wanted = packages.content(path, data, SOURCE)
    hidden = set()
    for place in range(len(data)):
        flipped = {
            packages.content(path, data[:place] + bytes([byte]) + data[place + 1 :], SOURCE)
            for byte in {data[place] ^ 1, data[place] ^ 0x80, ord("5"), ord("`")} - {data[place]}
        }
        hidden |= {place} if wanted in flipped else set()
    assert hidden <= times


def test_two_random_changes_of_a_library_never_cancel_out(packages: Packages) -> None:
    random_ = random.Random(20260310)  # noqa: S311
    data, times = NORMALISED["/a.a"]
    places = [place for place in range(len(data)) if place not in times]
    identities = {packages.content("/a.a", data)}
    variants = {data}
    for _ in range(300):
        changed = bytearray(data)
        for place in random_.sample(places, random_.randint(1, 3)):
            changed[place] = random_.choice([0, 10, 32, 48, 57, 96, random_.randrange(256)])
        cut = bytes(changed[: random_.randint(1, len(changed))])
        variants.add(cut)
        identities.add(packages.content("/a.a", cut))
    assert len(identities) == len(variants)


def refusal(packages: Packages, files: Sequence[ImageFile] | bytes) -> str:
    with refused(NotTrusted, "gpkg-damaged") as caught:
        packages.identity(files)
    return str(caught.value.fields["cause"])


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/usr/./bin", "/usr//bin", "/usr/..", "x/usr"], ids=str
)
def test_path_out_of_the_image_is_refused(packages: Packages, path: str) -> None:
    entry = HELLO.header()
    entry.name = f"image{path}"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as written:
        written.addfile(entry, io.BytesIO(HELLO.data))
    assert "unexpected path" in refusal(packages, out.getvalue())


def test_malformed_images_are_refused(packages: Packages) -> None:
    hello, hi = FILES[2:4]
    assert "duplicate" in refusal(packages, (hello, hello))
    assert "duplicate" in refusal(packages, (hello, replace(hello, path="/usr/bin/hello/")))
    refusal(packages, (hi, hello))  # a link before its file
    refusal(packages, (hello, replace(hi, target="/../usr/bin/hello")))
    refusal(packages, (hello, replace(hi, mode=0o4755)))
    refusal(packages, (FILES[4], replace(hi, target=FILES[4].path, mode=0o777)))
    refusal(packages, (replace(hello, kind=b"7"),))
    whole = image([hello])
    refusal(packages, whole[:700])
    refusal(packages, whole + b"x")
    second = image([hello, FILES[5]])
    damaged = second[:1024] + b"y" + second[1025:]
    assert refusal(packages, damaged)
    assert packages.identity(whole + bytes(100_000)) == packages.identity(whole)


def test_sparse_files_are_refused(packages: Packages) -> None:
    for more in (
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 15},
        {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 62)},
        {"GNU.sparse.size": str(1 << 62), "GNU.sparse.numblocks": "0"},
    ):
        assert "sparse" in refusal(packages, [replace(HELLO, attributes=more)])
    old = HELLO.header()
    old.type = tarfile.GNUTYPE_SPARSE
    assert "sparse" in refusal(packages, old.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


def test_extended_header_of_any_size_takes_no_memory(packages: Packages) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        head = tarfile.TarInfo("image/x")
        head.type, head.size = kind, 160 << 20
        data = head.tobuf(tarfile.GNU_FORMAT) + bytes(160 << 20)
        path = built_package(packages.path, data, ALL)
        del data
        tracemalloc.start()
        try:
            with refused(NotTrusted, "gpkg-damaged"):
                identity(path)
            assert tracemalloc.get_traced_memory()[1] < 100 << 20
        finally:
            tracemalloc.stop()


def test_header_that_python_cannot_take_is_refused(packages: Packages) -> None:
    assert refusal(packages, [replace(HELLO, path="/x.py", attributes={"mtime": "inf"})])
    nested = tarfile.TarInfo("image/x")
    nested.type = tarfile.GNUTYPE_LONGNAME
    assert refusal(packages, nested.tobuf(tarfile.GNU_FORMAT) * 3000)


def test_headers_that_fill_the_memory_are_refused(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpkg, "HEADERS_LIMIT", 10_000)
    packages.identity([replace(HELLO, attributes={"SCHILY.xattr.user.x": "x" * 9000})])
    large = replace(HELLO, attributes={"SCHILY.xattr.user.x": "x" * 10_000})
    assert "headers are too large" in refusal(packages, [large])


def test_bomb_ends_with_an_error(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpkg, "IMAGE_LIMIT", 10 << 20)
    big = ImageFile("/zeros", bytes(20 << 20))
    for suffix in PACKERS:
        path = built_package(packages.path, [big], ALL, suffix=suffix)
        with refused(NotTrusted, "gpkg-damaged"):
            identity(path)
    monkeypatch.setattr(gpkg, "ENTRIES_LIMIT", 10)
    assert "too many" in refusal(packages, [ImageFile(f"/{n}") for n in range(11)])
    packages.identity([ImageFile(f"/{n}") for n in range(10)])


def test_environment_that_is_a_bomb_is_refused(
    packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpkg, "_ENVIRONMENT_LIMIT", 1 << 20)
    path = built_package(packages.path, FILES, ALL, environment=bytes(2 << 20))
    with refused(NotTrusted, "gpkg-damaged"):
        identity(path)
