"""Hostile stage tarballs, and file systems that lose what is written to them."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.messages import Field
from tasks.seed import policy
from tasks.seed.extract import Archive, extract
from tasks.seed.tar_stream import ArchiveRefused
from tasks.system.files import sha512
from tasks.system.notes import Note, listening
from tests.kit.files import names
from tests.kit.refused import refused
from tests.kit.stages import CAPABILITY, describe_tree, pack_stage, sample_stage

pytestmark = pytest.mark.usefixtures("needs_root")

Form = Literal[0, 1, 2]  # of tarfile's formats
FILE, LINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    """The tar of a stage, not compressed, beside its tree."""
    place = tmp_path_factory.mktemp("good")
    pack_stage(sample_stage(place / "root"), place / "stage3.tar.gz")
    return place / "stage3.tar"


class Attempt:
    """Archives that begin as a good stage, and their extraction into `target`."""

    def __init__(self, folder: Path, good: Path) -> None:
        self.folder, self.good = folder, good
        self.target = folder / "seeds/id"

    def unpack(self, archive: Path, **options: Any) -> Path:
        with archive.open("rb") as stream:
            plan = Archive(stream, archive.name, **{"sha512": sha512(archive), **options})
            extract(plan, self.target, self.folder / "trash")
        return self.target

    def with_raw(self, tail: bytes, *, end: bytes = bytes(1024)) -> Path:
        """The good stage, with these bytes in place of its end."""
        with tarfile.open(self.good) as archive:
            archive.getmembers()
            start = self.good.read_bytes()[: archive.offset]
        target = self.folder / "x.tar.gz"
        target.write_bytes(gzip.compress(start + tail + end, 1))
        return target

    def with_members(self, *members: tarfile.TarInfo, form: Form = tarfile.GNU_FORMAT) -> Path:
        return self.with_raw(b"".join(raw(each, form) for each in members))

    def refused(
        self, archive: Path, reason: str, *, setuid: tuple[str, ...] = (), **fields: Field
    ) -> None:
        """Assert that an archive is refused as a stage, for that reason, and leaves nothing."""
        with refused(NotTrusted, "stage-refused", archive=archive.name, reason=reason) as excinfo:
            self.unpack(archive, setuid=setuid)
        cause = excinfo.value.__cause__
        assert isinstance(cause, ArchiveRefused)
        assert {name: cause.fields.get(name) for name in fields} == fields
        assert excinfo.value.message.isprintable()
        assert excinfo.value.hint
        self.nothing_left()

    def failed(
        self,
        archive: Path,
        kind: type[BinmillError],
        code: str,
        options: Mapping[str, Any] | None = None,
        **fields: Field,
    ) -> BinmillError:
        """Assert that the extraction fails with that error, and leaves nothing."""
        with refused(kind, code, **fields) as excinfo:
            self.unpack(archive, **(options or {}))
        assert excinfo.value.message.isprintable()
        assert excinfo.value.hint
        self.nothing_left()
        return excinfo.value

    def nothing_left(self) -> None:
        assert names(self.target.parent) == []
        assert names(self.folder / "trash") == []


@pytest.fixture
def attempt(tmp_path: Path, good: Path) -> Attempt:
    return Attempt(tmp_path, good)


def member(name: str, kind: bytes = FILE, target: str = "", **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o644
    for key, value in more.items():
        setattr(info, key, value)
    return info


def raw(info: tarfile.TarInfo, form: Form = tarfile.GNU_FORMAT) -> bytes:
    data = b"evil" if info.isreg() and not info.size else bytes(info.size)
    info.size = len(data) if info.isreg() else info.size
    return info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def test_extract_of_the_good_stage_is_accepted(attempt: Attempt) -> None:
    root = attempt.unpack(attempt.with_members())
    assert describe_tree(root) == describe_tree(attempt.good.parent / "root")


# Absolute names, and out by ..
@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "usr/../../escaped",
        "usr/..",
        "{out}/escaped",
        "/escaped",
        "..",
        "usr//escaped",
        "usr/./escaped",
        "././escaped",
        "./../escaped",
        "l" * 120 + "/../../../escaped",
    ],
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_extract_with_a_name_that_leads_out_is_refused(
    attempt: Attempt, name: str, form: Form
) -> None:
    filled = name.format(out=attempt.folder)
    attempt.refused(attempt.with_members(member(filled), form=form), "path-leads-out")
    assert not list(attempt.folder.rglob("escaped"))


# Links that lead out, or would be written through
@pytest.mark.parametrize(
    ("members", "reason", "path"),
    [
        ([("link", LINK, "{out}"), ("link/escaped", FILE, "")], "entry-through-link", "link"),
        ([("link", LINK, "../../out"), ("link/escaped", FILE, "")], "entry-through-link", "link"),
        ([("link", LINK, "usr"), ("link/escaped", FILE, "")], "entry-through-link", "link"),
        ([("bin/escaped", FILE, "")], "entry-through-link", "bin"),
        ([("usr/bin/su/escaped", FILE, "")], "entry-through-link", "usr/bin/su"),
        (
            [("a", LINK, "b"), ("b", LINK, "{out}"), ("a/b/escaped", FILE, "")],
            "entry-through-link",
            "a/b",
        ),
        ([("link", LINK, "{out}/there"), ("link", FILE, "")], "entry-twice", "link"),
        ([("d", FOLDER, ""), ("d", LINK, "{out}"), ("d/escaped", FILE, "")], "entry-twice", "d"),
        (
            [("link", LINK, "{out}"), ("link", FOLDER, ""), ("link/escaped", FILE, "")],
            "entry-two-kinds",
            "link",
        ),
        ([("hard", HARD, "{out}/there")], "path-leads-out", "{out}/there"),
        ([("hard", HARD, "../../out/there")], "path-leads-out", "../../out/there"),
        ([("link", LINK, "{out}/there"), ("hard", HARD, "link")], "entry-hard-link", "hard"),
        ([("hard", HARD, "later"), ("later", FILE, "")], "entry-hard-link", "hard"),
        ([("hard", HARD, "usr/bin")], "entry-hard-link", "hard"),
        ([("hard", HARD, "bin/su")], "entry-hard-link", "hard"),
        ([("hard", HARD, "dev/null")], "entry-hard-link", "hard"),
        ([("link", LINK, "x" * 5000)], "entry-link-target", "link"),
        ([("hard", HARD, "etc/secret"), ("hard", FILE, "")], "entry-twice", "hard"),
    ],
)
def test_extract_with_a_link_that_leads_out_is_refused(
    attempt: Attempt, members: list[tuple[str, bytes, str]], reason: str, path: str
) -> None:
    out = attempt.folder / "out"
    out.mkdir()
    (out / "there").write_text("mine")
    infos = [member(name, kind, target.format(out=out)) for name, kind, target in members]
    attempt.refused(attempt.with_members(*infos), reason, path=path.format(out=out))
    assert names(out) == ["there"]
    assert (out / "there").read_text() == "mine"
    assert (out / "there").stat().st_nlink == 1


def test_extract_accepts_a_link_that_nothing_is_written_through(
    attempt: Attempt,
) -> None:
    links = [member("abs", LINK, "/etc/passwd"), member("up", LINK, "../../../x")]
    root = attempt.unpack(attempt.with_members(*links))
    assert (root / "abs").readlink() == Path("/etc/passwd")
    assert (root / "up").readlink() == Path("../../../x")


# Devices
@pytest.mark.parametrize(
    ("kind", "major", "minor", "reason"),
    [
        (tarfile.BLKTYPE, 8, 0, "entry-block-device"),
        (tarfile.BLKTYPE, 1, 3, "entry-block-device"),
        (tarfile.CHRTYPE, 1, 1, "entry-device"),  # memory
        (tarfile.CHRTYPE, 1, 4, "entry-device"),  # ports
        (tarfile.CHRTYPE, 10, 237, "entry-device"),  # loop-control
        (tarfile.CHRTYPE, 0, 0, "entry-device"),  # overlayfs: deleted
    ],
)
def test_extract_with_a_device_that_no_stage_needs_is_refused(
    attempt: Attempt, kind: bytes, major: int, minor: int, reason: str
) -> None:
    device = member("dev/x", kind, devmajor=major, devminor=minor)
    attempt.refused(attempt.with_members(device), reason, path="dev/x")


# Setuid and the like outside of where programs lie
@pytest.mark.parametrize(
    "place",
    [
        "tmp/x",
        "home/x/su",
        "etc/su",
        "var/tmp/su",
        "su",
        "usr/su",
        "dev/su",
        "root/bin/su",
        "usr/share/su",
        "var/usr/bin/su",
    ],
)
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711, 0o4000])
def test_extract_with_setuid_where_no_program_belongs_is_refused(
    attempt: Attempt, place: str, mode: int
) -> None:
    archive = attempt.with_members(member(place, mode=mode))
    attempt.refused(archive, "entry-privileged-place", path=place)


@pytest.mark.parametrize(
    "place",
    [
        "usr/sbin/x",
        "usr/lib64/misc/x",
        "usr/libexec/a/b/x",
        "opt/vendor/bin/x",
        "usr/local/bin/x",
        "lib/x",
        "usr/x86_64-pc-linux-gnu/bin/x",
    ],
)
def test_extract_with_setuid_in_a_directory_for_programs_is_accepted(
    attempt: Attempt, place: str
) -> None:
    root = attempt.unpack(attempt.with_members(member(place, mode=0o4711)))
    assert (root / place).stat().st_mode & 0o7777 == 0o4711


def test_extract_with_setuid_that_the_config_names_is_accepted(attempt: Attempt) -> None:
    archive = attempt.with_members(member("var/mail/bin/queue", mode=0o4711))
    place = "entry-privileged-place"
    attempt.refused(
        archive, place, setuid=("/var/mail/bin",), path="var/mail/bin/queue", privileges=["setuid"]
    )
    root = attempt.unpack(archive, setuid=("/var/mail/bin/queue",))
    assert (root / "var/mail/bin/queue").stat().st_mode & 0o7777 == 0o4711


def test_extract_with_setuid_that_others_can_write_to_is_refused(attempt: Attempt) -> None:
    archive = attempt.with_members(member("usr/bin/x", mode=0o4757))
    attempt.refused(archive, "entry-privileged-writable", path="usr/bin/x")


def test_extract_with_a_misplaced_hard_link_to_a_privileged_file_is_refused(
    attempt: Attempt,
) -> None:
    """The mode in a hard link's header means nothing: the file's mode counts."""
    archive = attempt.with_members(member("tmp/x", HARD, "./usr/bin/su", mode=0o644))
    place = "entry-privileged-place"
    attempt.refused(archive, place, path="tmp/x", privileges=["setuid"])
    capable = attempt.with_members(member("tmp/x", HARD, "usr/bin/ping"))
    attempt.refused(capable, place, path="tmp/x", privileges=["capabilities"])


def test_extract_with_capabilities_where_no_program_belongs_is_refused(attempt: Attempt) -> None:
    header = pax(b"SCHILY.xattr.security.capability", CAPABILITY)
    archive = attempt.with_raw(header + raw(member("home/x")))
    attempt.refused(archive, "entry-privileged-place", path="home/x", privileges=["capabilities"])


@pytest.mark.parametrize(
    "name",
    [b"trusted.overlay.redirect", b"trusted.overlay.opaque", b"user.overlay.opaque", b"trusted.x"],
)
def test_extract_with_an_attribute_that_overlayfs_obeys_is_refused(
    attempt: Attempt, name: bytes
) -> None:
    archive = attempt.with_raw(pax(b"SCHILY.xattr." + name, b"/etc") + raw(member("usr/x")))
    attempt.refused(archive, "entry-attribute", path="usr/x", attribute=name.decode())


# Limits
def test_extract_of_too_many_entries_is_refused(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "_ENTRIES_LIMIT", 2000)
    root = attempt.unpack(attempt.with_members(*(member(f"tmp/{n}") for n in range(1900))))
    assert len(names(root / "tmp")) == 1900
    attempt.target = attempt.folder / "more/id"
    many = attempt.with_members(*(member(f"tmp/{n}") for n in range(2000)))
    attempt.refused(many, "stage-entry-limit", limit=2000)


@pytest.mark.soak
def test_extract_of_a_million_entries_is_refused(attempt: Attempt) -> None:
    """As above, with the real limit."""
    empty = (member(f"tmp/{n}", size=0) for n in range(1_000_000))
    block = b"".join(each.tobuf(tarfile.USTAR_FORMAT) for each in empty)
    attempt.refused(attempt.with_raw(block), "stage-entry-limit", limit=900_000)


def test_extract_of_too_many_bytes_for_the_size_of_the_archive_is_refused(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "_RATIO_FREE", 80 << 20)
    bomb = attempt.with_members(member("var/zeros", size=100 << 20))
    assert bomb.stat().st_size < 1 << 20
    attempt.refused(bomb, "stage-size-limit", limit=80 << 20)


def test_extract_of_a_huge_size_in_a_header_is_refused(attempt: Attempt) -> None:
    huge = member("var/huge", size=1 << 40)
    header = huge.tobuf(tarfile.GNU_FORMAT)
    attempt.refused(attempt.with_raw(header), "stage-size-limit", limit=1 << 30)


def test_extract_of_too_many_levels_is_refused(attempt: Attempt) -> None:
    attempt.refused(attempt.with_members(member("d/" * 101 + "x")), "path-too-long")


# Headers that two tars could read differently
def pax(*records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header with KEYWORD, VALUE, KEYWORD, VALUE..."""
    text = b""
    for keyword, value in zip(records[::2], records[1::2], strict=True):
        length = len(keyword) + len(value) + 3
        length += len(str(length + len(str(length))))
        text += b"%d %s=%s\n" % (length, keyword, value)
    return extension(kind, text)


def extension(kind: bytes, text: bytes, size: int | None = None) -> bytes:
    head = tarfile.TarInfo("././@x")
    head.type, head.size = kind, len(text) if size is None else size
    return head.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)


def ustar(name: str = "usr/x", **more: Any) -> bytes:
    return raw(member(name, **more), tarfile.USTAR_FORMAT)


def corrupt(block: bytes, at: int, value: bytes, *, fits: bool = True) -> bytes:
    """A header with some bytes changed; its checksum `fits` unless that is the damage."""
    block = block[:at] + value + block[at + len(value) :]
    if fits:
        total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
        block = block[:148] + b"%06o\0 " % total + block[156:]
    return block


X, G = tarfile.XHDTYPE, tarfile.XGLTYPE
AMBIGUOUS: dict[str, tuple[bytes, str]] = {
    "a path in an extended header": (pax(b"path", b"../x") + ustar(), "path-leads-out"),
    "a sparse name": (pax(b"GNU.sparse.name", b"/x", b"path", b"x") + ustar(), "path-leads-out"),
    "a link in an extended header": (
        pax(b"linkpath", b"/etc/passwd") + ustar("h", kind=HARD, target="usr/bin/su"),
        "path-leads-out",
    ),
    "a long name": (extension(b"L", b"usr/../../x\0") + ustar(), "path-leads-out"),
    "a long link": (
        extension(b"K", b"/etc/group\0") + ustar("h", kind=HARD, target="usr/bin/su"),
        "path-leads-out",
    ),
    "a prefix": (corrupt(ustar(), 345, b"../.."), "path-leads-out"),
    "a global path": (pax(b"path", b"../x", kind=G) + ustar(), "tar-global-header"),
    "an unknown keyword": (pax(b"SUN.x", b"1") + ustar(), "tar-keyword"),
    "a dump": (pax(b"GNU.dumpdir", b"Yx\0\0") + ustar(), "tar-keyword"),
    "a NUL in a path": (pax(b"path", b"usr/x\0y") + ustar(), "tar-entry-nul"),
    "an empty path": (pax(b"path", b"") + ustar(), "tar-name-empty"),
    "an empty name": (corrupt(ustar(), 0, bytes(100)), "path-leads-out"),
    "two extended headers": (
        pax(b"path", b"a") + pax(b"path", b"b") + ustar(),
        "tar-extended-header-repeated",
    ),
    "two long names": (
        extension(b"L", b"a\0") + extension(b"L", b"b\0") + ustar(),
        "tar-extended-header-repeated",
    ),
    "both kinds": (
        pax(b"path", b"a") + extension(b"L", b"b\0") + ustar(),
        "tar-extended-header-repeated",
    ),
    "a wrong length": (extension(X, b"99 path=x\n") + ustar(), "tar-extended-header-damaged"),
    "a length of nothing": (extension(X, b"0 path=x\n") + ustar(), "tar-extended-header-damaged"),
    "no length": (extension(X, b"path=x\n") + ustar(), "tar-extended-header-damaged"),
    "a huge extended header": (extension(X, b"", 1 << 30) + ustar(), "tar-extended-header-size"),
    "two sizes": (pax(b"size", b"512") + ustar(), "tar-entry-two-sizes"),
    "a negative size": (pax(b"size", b"-1") + ustar(), "tar-extended-header-number"),
    "a size in letters": (corrupt(ustar(), 124, b"0000000000z\0"), "tar-header-number"),
    "a negative size in base 256": (corrupt(ustar(), 124, b"\xff" * 12), "tar-header-number"),
    "a folder by its name": (corrupt(ustar("usr/x/"), 0, b"usr/x/"), "tar-entry-file-or-directory"),
    "a link with content": (
        corrupt(ustar("l", kind=LINK, target="x"), 124, b"00000000100\0"),
        "tar-entry-content",
    ),
    "an unknown type": (corrupt(ustar(), 156, b"Z"), "tar-entry-type"),
    "a volume": (corrupt(ustar(), 156, b"V"), "tar-entry-type"),
    "a multi-volume": (corrupt(ustar(), 156, b"M"), "tar-entry-type"),
    "a damaged header": (corrupt(ustar(), 0, b"xyz", fits=False), "tar-header-checksum"),
    "a second archive": (bytes(512) + ustar(), "tar-data-after-end"),
}


@pytest.mark.parametrize("odd", AMBIGUOUS)
def test_extract_with_a_header_that_is_ambiguous_is_refused(attempt: Attempt, odd: str) -> None:
    tail, reason = AMBIGUOUS[odd]
    attempt.refused(attempt.with_raw(tail), reason)


@pytest.mark.parametrize("end", [b"", bytes(100), ustar()[:300], ustar()[:512]], ids=len)
def test_extract_of_an_archive_without_an_end_is_refused(attempt: Attempt, end: bytes) -> None:
    attempt.refused(attempt.with_raw(b"", end=end), "tar-truncated")


def test_extract_with_a_global_comment_is_accepted(attempt: Attempt) -> None:
    tail = pax(b"comment", b"made by hand", kind=G) + ustar("usr/x")
    assert (attempt.unpack(attempt.with_raw(tail)) / "usr/x").read_text() == "evil"


# The root directory
def test_extract_without_an_entry_for_the_root_gives_it_mode_755(
    good: Path, attempt: Attempt
) -> None:
    archive = attempt.folder / "x.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", good.parent / "root", "bin", "usr"], check=True)
    before = os.umask(0o077)
    try:
        root = attempt.unpack(archive)
    finally:
        os.umask(before)
    assert root.stat().st_mode & 0o7777 == 0o755
    assert names(root) == ["bin", "usr"]


@pytest.mark.parametrize("top", ["root", "./root"])
def test_extract_of_a_stage_below_one_directory_is_refused(
    good: Path, attempt: Attempt, top: str
) -> None:
    archive = attempt.folder / "x.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", good.parent, top], check=True)
    attempt.refused(archive, "stage-in-subdirectory", folder="root")


def test_extract_with_a_root_that_is_a_file_is_refused(attempt: Attempt) -> None:
    attempt.refused(attempt.with_raw(corrupt(ustar("."), 0, b".\0")), "entry-twice", path="")


# A file that changes between verification and use
def test_extract_of_other_bytes_than_pinned_is_refused(attempt: Attempt) -> None:
    archive = attempt.with_members()
    pinned = "0" * 128
    attempt.failed(archive, NotTrusted, "stage-not-pinned", {"sha512": pinned}, pinned=pinned)


def test_extract_of_a_file_replaced_meanwhile_reads_the_open_one(attempt: Attempt) -> None:
    archive = attempt.with_members()
    digest = sha512(archive)
    with archive.open("rb") as stream:
        archive.rename(archive.with_name("away"))
        attempt.with_members(member("usr/evil"))
        extract(Archive(stream, "x.tar.gz", digest), attempt.target, attempt.folder / "trash")
    assert not (attempt.target / "usr/evil").exists()


def test_extract_ignores_the_callers_tar_and_xz_options(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAR_OPTIONS", "--no-xattrs --exclude=su")
    monkeypatch.setenv("GZIP", "-c -1")
    monkeypatch.setenv("XZ_OPT", "--memlimit=1")
    root = attempt.unpack(attempt.with_members())
    assert describe_tree(root) == describe_tree(attempt.good.parent / "root")


Mount = Callable[[str, str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    mounts: list[Path] = []

    def act(kind: str, options: str) -> Path:
        place = tmp_path / f"mounted-{len(mounts)}"
        place.mkdir()
        result = subprocess.run(["mount", "-t", kind, "-o", options, kind, place], check=False)
        if result.returncode != 0:
            pytest.skip(f"needs to mount a {kind}")
        mounts.append(place)
        return place

    yield act
    for place in mounts:
        subprocess.run(["umount", place], check=True)


# tar only warns where a file system cannot store capabilities
def test_extract_to_a_file_system_without_capabilities_fails(
    attempt: Attempt, mount: Mount
) -> None:
    attempt.folder = mount("ramfs", "mode=755")
    attempt.target = attempt.folder / "seeds/id"
    archive = attempt.with_members()
    attempt.failed(
        archive, BinmillError, "stage-privileges-lost", path="usr/bin/ping", lost="capabilities"
    )


@pytest.mark.parametrize("options", ["size=3m", "nr_inodes=20"])
def test_extract_to_a_full_disk_fails_and_can_be_repeated(
    attempt: Attempt, mount: Mount, options: str
) -> None:
    root = sample_stage(attempt.folder / "root")
    for number in range(6):
        (root / "var" / f"blob-{number}").write_bytes(os.urandom(1 << 20))
    archive = pack_stage(root, attempt.folder / "stage3.tar.zst")
    attempt.folder = mount("tmpfs", options)
    attempt.target = attempt.folder / "seeds/id"
    failure = attempt.failed(archive, BinmillError, "stage-not-unpacked")
    assert "No space left on device" in str(failure.fields["message"])
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=1k", attempt.folder], check=True)
    assert describe_tree(attempt.unpack(archive)) == describe_tree(root)


# CONTENTS.gz
def listing(tree: Path, *options: str, locale: str = "C.UTF-8") -> bytes:
    """CONTENTS.gz of a tree, as the makers of stages write it."""
    archive = tree.with_name("listed.tar")
    subprocess.run(["tar", "-cSf", archive, "-C", tree, "."], check=True)
    tar = subprocess.run(
        ["tar", "-tvf", archive, *options],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": locale},
    )
    return gzip.compress(tar.stdout)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("options", [(), ("--numeric-owner",), ("--full-time",)])
def test_extract_with_a_matching_listing_is_accepted(
    attempt: Attempt, options: tuple[str, ...], locale: str
) -> None:
    tree = sample_stage(attempt.folder / "root")
    for name in (b"latin-\xe9", b"new\nline", b"tab\t", b"back\\slash", b"a -> b", b"101\\101"):
        (tree / "etc" / os.fsdecode(name)).write_bytes(name)
    archive = pack_stage(tree, attempt.folder / "stage3.tar.gz")
    attempt.unpack(archive, contents=listing(tree, *options, locale=locale))


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        (b"rws--x--x", b"rwx--x--x", "/usr/bin/su: mode -rws--x--x, listed -rwx--x--x"),
        (b"./usr/bin/emerge\n", b"./usr/bin/merge\n", "/usr/bin/merge: missing"),
        (b"250/4242", b"251/4242", "/etc/secret: owner (250, 4242), listed (251, 4242)"),
        (b"1,3", b"1,5", "/dev/null: device (1, 3), listed (1, 5)"),
        (b"-> usr/bin", b"-> usr/sbin", "/bin: link to usr/bin, listed usr/sbin"),
        (b"67108864", b"67108865", "/var/sparse: 67108864 bytes, listed 67108865"),
    ],
)
def test_extract_with_a_listing_that_differs_fails(
    attempt: Attempt, old: bytes, new: bytes, difference: str
) -> None:
    tree = attempt.good.parent / "root"
    text = gzip.decompress(listing(tree, "--numeric-owner"))
    assert old in text
    changed = gzip.compress(text.replace(old, new))
    failure = attempt.failed(
        attempt.with_members(), BinmillError, "stage-differs-from-contents", {"contents": changed}
    )
    assert difference in cast(list[str], failure.fields["differences"])


def test_extract_with_a_listing_of_more_entries_fails(attempt: Attempt) -> None:
    text = gzip.decompress(listing(attempt.good.parent / "root"))
    double = gzip.compress(text + text.splitlines(keepends=True)[-1])
    attempt.failed(
        attempt.with_members(), BinmillError, "stage-contents-entry-count", {"contents": double}
    )


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"<html>",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"hello\n", mtime=0),
        gzip.compress(b"-rw-r--r-- 0/0 1 2026-01-01 00:00 ../x\n", mtime=0),
    ],
)
def test_extract_with_an_unreadable_listing_skips_it_with_a_note(
    attempt: Attempt, odd: bytes
) -> None:
    notes: list[Note] = []
    with listening(notes.append):
        attempt.unpack(attempt.with_members(), contents=odd)
    assert [note.code for note in notes] == ["stage-contents-unreadable"]
    assert notes[0].fields["archive"] == "x.tar.gz"
