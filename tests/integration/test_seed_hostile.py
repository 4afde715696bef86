"""Stage tarballs that mean harm, and disks that do not keep what they are given: fails well."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.seed import policy
from tasks.seed.extract import Archive, extract
from tasks.system.files import sha512
from tests.kit.files import names
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
    """An archive that begins as a good stage, and what becomes of it."""

    def __init__(self, folder: Path, good: Path) -> None:
        self.folder, self.good = folder, good
        self.target = folder / "seeds/id"

    def unpack(self, archive: Path, **more: Any) -> Path:
        with archive.open("rb") as stream:
            plan = Archive(stream, archive.name, **{"sha512": sha512(archive), **more})
            extract(plan, self.target, self.folder / "trash")
        return self.target

    def with_raw(self, tail: bytes, *, end: bytes = bytes(1024)) -> Path:
        """The good stage, then these bytes where its end was."""
        with tarfile.open(self.good) as archive:
            archive.getmembers()
            whole = self.good.read_bytes()[: archive.offset]
        target = self.folder / "x.tar.gz"
        target.write_bytes(gzip.compress(whole + tail + end, 1))
        return target

    def with_members(self, *members: tarfile.TarInfo, form: Form = tarfile.GNU_FORMAT) -> Path:
        return self.with_raw(b"".join(raw(each, form) for each in members))

    def refused(
        self, archive: Path, told: str, kind: type[BinmillError] = NotTrusted, **more: Any
    ) -> None:
        with pytest.raises(kind) as failed:
            self.unpack(archive, **more)
        assert told in failed.value.message
        assert failed.value.message.isprintable()
        assert failed.value.hint
        assert names(self.target.parent) == []
        assert names(self.folder / "trash") == []


@pytest.fixture
def attempt(tmp_path: Path, good: Path) -> Attempt:
    return Attempt(tmp_path, good)


def member(name: str, kind: bytes = FILE, target: str = "", **more: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, target, 0o644
    for key, value in more.items():
        setattr(made, key, value)
    return made


def raw(info: tarfile.TarInfo, form: Form = tarfile.GNU_FORMAT) -> bytes:
    data = b"evil" if info.isreg() and not info.size else bytes(info.size)
    info.size = len(data) if info.isreg() else info.size
    return info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % 512)


def test_the_good_one(attempt: Attempt) -> None:
    root = attempt.unpack(attempt.with_members())
    assert describe_tree(root) == describe_tree(attempt.good.parent / "root")


# 23: absolute names, and out by ..
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
def test_names_that_lead_out(attempt: Attempt, name: str, form: Form) -> None:
    filled = name.format(out=attempt.folder)
    attempt.refused(
        attempt.with_members(member(filled), form=form), "leads out of where it belongs"
    )
    assert not list(attempt.folder.rglob("escaped"))


# 24: links that lead out, or would be written through
@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("link", LINK, "{out}"), ("link/escaped", FILE, "")], "leads through 'link'"),
        ([("link", LINK, "../../out"), ("link/escaped", FILE, "")], "leads through 'link'"),
        ([("link", LINK, "usr"), ("link/escaped", FILE, "")], "leads through 'link'"),
        ([("bin/escaped", FILE, "")], "leads through 'bin'"),
        ([("usr/bin/su/escaped", FILE, "")], "leads through 'usr/bin/su'"),
        ([("a", LINK, "b"), ("b", LINK, "{out}"), ("a/b/escaped", FILE, "")], "leads through 'a'"),
        ([("link", LINK, "{out}/there"), ("link", FILE, "")], "'link' is in it twice"),
        ([("d", FOLDER, ""), ("d", LINK, "{out}"), ("d/escaped", FILE, "")], "'d' is in it twice"),
        ([("link", LINK, "{out}"), ("link", FOLDER, ""), ("link/escaped", FILE, "")], "two things"),
        ([("hard", HARD, "{out}/there")], "leads out of where it belongs"),
        ([("hard", HARD, "../../out/there")], "leads out of where it belongs"),
        ([("link", LINK, "{out}/there"), ("hard", HARD, "link")], "hard link to what is no file"),
        ([("hard", HARD, "later"), ("later", FILE, "")], "hard link to what is no file"),
        ([("hard", HARD, "usr/bin")], "hard link to what is no file"),
        ([("hard", HARD, "bin/su")], "hard link to what is no file"),
        ([("hard", HARD, "dev/null")], "hard link to what is no file"),
        ([("link", LINK, "x" * 5000)], "link to nowhere"),
        ([("hard", HARD, "etc/secret"), ("hard", FILE, "")], "'hard' is in it twice"),
    ],
)
def test_links_that_lead_out(
    attempt: Attempt, members: list[tuple[str, bytes, str]], told: str
) -> None:
    out = attempt.folder / "out"
    out.mkdir()
    (out / "there").write_text("mine")
    made = [member(name, kind, target.format(out=out)) for name, kind, target in members]
    attempt.refused(attempt.with_members(*made), told)
    assert names(out) == ["there"]
    assert (out / "there").read_text() == "mine"
    assert (out / "there").stat().st_nlink == 1


def test_a_link_may_lead_anywhere_as_long_as_nothing_is_written_there(attempt: Attempt) -> None:
    made = [member("abs", LINK, "/etc/passwd"), member("up", LINK, "../../../x")]
    root = attempt.unpack(attempt.with_members(*made))
    assert (root / "abs").readlink() == Path("/etc/passwd")
    assert (root / "up").readlink() == Path("../../../x")


# 25: devices
@pytest.mark.parametrize(
    ("kind", "major", "minor", "told"),
    [
        (tarfile.BLKTYPE, 8, 0, "'dev/x' is a block device"),
        (tarfile.BLKTYPE, 1, 3, "'dev/x' is a block device"),
        (tarfile.CHRTYPE, 1, 1, "a device that no stage needs (1:1)"),  # memory
        (tarfile.CHRTYPE, 1, 4, "a device that no stage needs (1:4)"),  # ports
        (tarfile.CHRTYPE, 10, 237, "a device that no stage needs (10:237)"),  # loop-control
        (tarfile.CHRTYPE, 0, 0, "a device that no stage needs (0:0)"),  # overlayfs: deleted
    ],
)
def test_devices(attempt: Attempt, kind: bytes, major: int, minor: int, told: str) -> None:
    made = member("dev/x", kind, devmajor=major, devminor=minor)
    attempt.refused(attempt.with_members(made), told)


# 26: setuid and the like outside of where programs lie
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
def test_setuid_where_no_program_belongs(attempt: Attempt, place: str, mode: int) -> None:
    archive = attempt.with_members(member(place, mode=mode))
    attempt.refused(archive, f"/{place} is setuid or setgid, and no program belongs there")


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
def test_setuid_where_programs_lie(attempt: Attempt, place: str) -> None:
    root = attempt.unpack(attempt.with_members(member(place, mode=0o4711)))
    assert (root / place).stat().st_mode & 0o7777 == 0o4711


def test_setuid_that_is_expected(attempt: Attempt) -> None:
    archive = attempt.with_members(member("var/mail/bin/queue", mode=0o4711))
    attempt.refused(archive, "/var/mail/bin/queue is setuid", expected=("/var/mail/bin",))
    root = attempt.unpack(archive, expected=("/var/mail/bin/queue",))
    assert (root / "var/mail/bin/queue").stat().st_mode & 0o7777 == 0o4711


def test_setuid_that_others_may_write(attempt: Attempt) -> None:
    attempt.refused(
        attempt.with_members(member("usr/bin/x", mode=0o4757)), "others may write to it"
    )


def test_a_setuid_program_under_another_name(attempt: Attempt) -> None:
    """A hard link's own mode says nothing: it is the file's."""
    archive = attempt.with_members(member("tmp/x", HARD, "./usr/bin/su", mode=0o644))
    attempt.refused(archive, "/tmp/x is setuid or setgid, and no program belongs there")
    capable = attempt.with_members(member("tmp/x", HARD, "usr/bin/ping"))
    attempt.refused(capable, "/tmp/x has capabilities, and no program belongs there")


def test_capabilities_where_no_program_belongs(attempt: Attempt) -> None:
    header = pax(b"SCHILY.xattr.security.capability", CAPABILITY)
    archive = attempt.with_raw(header + raw(member("home/x")))
    attempt.refused(archive, "/home/x has capabilities, and no program belongs there")


@pytest.mark.parametrize(
    "name",
    [b"trusted.overlay.redirect", b"trusted.overlay.opaque", b"user.overlay.opaque", b"trusted.x"],
)
def test_what_overlayfs_would_heed(attempt: Attempt, name: bytes) -> None:
    archive = attempt.with_raw(pax(b"SCHILY.xattr." + name, b"/etc") + raw(member("usr/x")))
    attempt.refused(archive, f"'usr/x' has the attribute '{name.decode()}'")


# 27: too much of it
def test_too_many_entries(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_ENTRIES_LIMIT", 2000)
    root = attempt.unpack(attempt.with_members(*(member(f"tmp/{n}") for n in range(1900))))
    assert len(names(root / "tmp")) == 1900
    attempt.target = attempt.folder / "more/id"
    many = attempt.with_members(*(member(f"tmp/{n}") for n in range(2000)))
    attempt.refused(many, "it has more than 2000 entries")


@pytest.mark.soak
def test_a_million_entries(attempt: Attempt) -> None:
    """As above, without a lower limit."""
    empty = (member(f"tmp/{n}", size=0) for n in range(1_000_000))
    block = b"".join(each.tobuf(tarfile.USTAR_FORMAT) for each in empty)
    attempt.refused(attempt.with_raw(block), "it has more than 900000 entries")


def test_too_many_bytes_for_its_size(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_RATIO_FREE", 80 << 20)
    bomb = attempt.with_members(member("var/zeros", size=100 << 20))
    assert bomb.stat().st_size < 1 << 20
    attempt.refused(bomb, "it unpacks to more than 80 MiB, too much for its own size")


def test_a_size_that_is_not_there(attempt: Attempt) -> None:
    huge = member("var/huge", size=1 << 40)
    header = huge.tobuf(tarfile.GNU_FORMAT)
    attempt.refused(attempt.with_raw(header), "it unpacks to more than 1024 MiB")


def test_too_deep(attempt: Attempt) -> None:
    attempt.refused(attempt.with_members(member("d/" * 101 + "x")), "is longer than one can be")


# What one tar could read otherwise than another
def pax(*records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header of KEYWORD, VALUE, KEYWORD, VALUE..."""
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


def damaged(block: bytes, at: int, value: bytes, *, fits: bool = True) -> bytes:
    """A header with some bytes changed; with a checksum that fits unless that is the damage."""
    block = block[:at] + value + block[at + len(value) :]
    if fits:
        total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
        block = block[:148] + b"%06o\0 " % total + block[156:]
    return block


X, G = tarfile.XHDTYPE, tarfile.XGLTYPE
ODD: dict[str, tuple[bytes, str]] = {
    "a path in an extended header": (pax(b"path", b"../x") + ustar(), "leads out"),
    "a sparse name": (pax(b"GNU.sparse.name", b"/x", b"path", b"x") + ustar(), "leads out"),
    "a link in an extended header": (
        pax(b"linkpath", b"/etc/passwd") + ustar("h", kind=HARD, target="usr/bin/su"),
        "leads out",
    ),
    "a long name": (extension(b"L", b"usr/../../x\0") + ustar(), "leads out"),
    "a long link": (
        extension(b"K", b"/etc/group\0") + ustar("h", kind=HARD, target="usr/bin/su"),
        "leads out",
    ),
    "a prefix": (damaged(ustar(), 345, b"../.."), "leads out"),
    "a global path": (pax(b"path", b"../x", kind=G) + ustar(), "a global extended header"),
    "an unknown keyword": (pax(b"SUN.x", b"1") + ustar(), "unknown keyword ('SUN.x')"),
    "a dump": (pax(b"GNU.dumpdir", b"Yx\0\0") + ustar(), "unknown keyword ('GNU.dumpdir')"),
    "a NUL in a path": (pax(b"path", b"usr/x\0y") + ustar(), "has a NUL in its name"),
    "an empty path": (pax(b"path", b"") + ustar(), "an empty name"),
    "an empty name": (damaged(ustar(), 0, bytes(100)), "leads out"),
    "two extended headers": (pax(b"path", b"a") + pax(b"path", b"b") + ustar(), "two extended"),
    "two long names": (extension(b"L", b"a\0") + extension(b"L", b"b\0") + ustar(), "two extended"),
    "both kinds": (pax(b"path", b"a") + extension(b"L", b"b\0") + ustar(), "two extended"),
    "a wrong length": (extension(X, b"99 path=x\n") + ustar(), "extended header is damaged"),
    "a length of nothing": (extension(X, b"0 path=x\n") + ustar(), "extended header is damaged"),
    "no length": (extension(X, b"path=x\n") + ustar(), "extended header is damaged"),
    "a huge extended header": (extension(X, b"", 1 << 30) + ustar(), "larger than one can be"),
    "two sizes": (pax(b"size", b"512") + ustar(), "'usr/x' has two sizes"),
    "a negative size": (pax(b"size", b"-1") + ustar(), "no number where one belongs"),
    "a size in letters": (damaged(ustar(), 124, b"0000000000z\0"), "no number where one belongs"),
    "a negative size in base 256": (damaged(ustar(), 124, b"\xff" * 12), "no number"),
    "a folder by its name": (damaged(ustar("usr/x/"), 0, b"usr/x/"), "a directory by its name"),
    "a link with content": (
        damaged(ustar("l", kind=LINK, target="x"), 124, b"00000000100\0"),
        "with content",
    ),
    "an unknown type": (damaged(ustar(), 156, b"Z"), "of an unknown type ('Z')"),
    "a volume": (damaged(ustar(), 156, b"V"), "of an unknown type ('V')"),
    "a multi-volume": (damaged(ustar(), 156, b"M"), "of an unknown type ('M')"),
    "a damaged header": (damaged(ustar(), 0, b"xyz", fits=False), "a header is damaged"),
    "a second archive": (bytes(512) + ustar(), "something comes after its end"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_could_be_read_in_two_ways(attempt: Attempt, odd: str) -> None:
    tail, told = ODD[odd]
    attempt.refused(attempt.with_raw(tail), told)


@pytest.mark.parametrize("end", [b"", bytes(100), ustar()[:300], ustar()[:512]])
def test_no_end(attempt: Attempt, end: bytes) -> None:
    attempt.refused(attempt.with_raw(b"", end=end), "it is not a whole tar archive")


def test_a_comment_for_all(attempt: Attempt) -> None:
    tail = pax(b"comment", b"made by hand", kind=G) + ustar("usr/x")
    assert (attempt.unpack(attempt.with_raw(tail)) / "usr/x").read_text() == "evil"


# 31: the top directory
def test_no_entry_for_the_top(good: Path, attempt: Attempt) -> None:
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
def test_a_top_directory_too_many(good: Path, attempt: Attempt, top: str) -> None:
    archive = attempt.folder / "x.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", good.parent, top], check=True)
    attempt.refused(archive, "all of it lies in a directory of its own (root/)")


def test_the_top_is_no_directory(attempt: Attempt) -> None:
    attempt.refused(attempt.with_raw(ustar("./x")[:0] + damaged(ustar("."), 0, b".\0")), "twice")


# 22: the file changes between verification and use
def test_other_bytes_than_those_that_were_verified(attempt: Attempt) -> None:
    archive = attempt.with_members()
    attempt.refused(archive, "x.tar.gz is not the pinned file (SHA-512", sha512="0" * 128)


def test_swapped_while_it_is_open(attempt: Attempt) -> None:
    """What was opened is used, whatever has its name by then."""
    archive = attempt.with_members()
    digest = sha512(archive)
    with archive.open("rb") as stream:
        archive.rename(archive.with_name("away"))
        attempt.with_members(member("usr/evil"))
        extract(Archive(stream, "x.tar.gz", digest), attempt.target, attempt.folder / "trash")
    assert not (attempt.target / "usr/evil").exists()


def test_the_callers_options_do_not_count(
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
    made: list[Path] = []

    def act(kind: str, options: str) -> Path:
        place = tmp_path / f"mounted-{len(made)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", kind, "-o", options, kind, place], check=False)
        if done.returncode != 0:
            pytest.skip(f"needs to mount a {kind}")
        made.append(place)
        return place

    yield act
    for place in made:
        subprocess.run(["umount", place], check=True)


# 29: a file system that loses capabilities, of which tar only warns
def test_capabilities_that_are_lost(attempt: Attempt, mount: Mount) -> None:
    attempt.folder = mount("ramfs", "mode=755")
    attempt.target = attempt.folder / "seeds/id"
    archive = attempt.with_members()
    attempt.refused(archive, "the capabilities of /usr/bin/ping did not survive", BinmillError)


# 42 and 43: no room
@pytest.mark.parametrize("options", ["size=3m", "nr_inodes=20"])
def test_a_full_disk(attempt: Attempt, mount: Mount, options: str) -> None:
    root = sample_stage(attempt.folder / "root")
    for number in range(6):
        (root / "var" / f"blob-{number}").write_bytes(os.urandom(1 << 20))
    archive = pack_stage(root, attempt.folder / "stage3.tar.zst")
    attempt.folder = mount("tmpfs", options)
    attempt.target = attempt.folder / "seeds/id"
    attempt.refused(archive, "No space left on device", BinmillError)
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=1k", attempt.folder], check=True)
    assert describe_tree(attempt.unpack(archive)) == describe_tree(root)


# CONTENTS
def listing(tree: Path, *options: str, locale: str = "C.UTF-8") -> bytes:
    """As stages' makers list a tarball."""
    archive = tree.with_name("listed.tar")
    subprocess.run(["tar", "-cSf", archive, "-C", tree, "."], check=True)
    done = subprocess.run(
        ["tar", "-tvf", archive, *options],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": locale},
    )
    return gzip.compress(done.stdout)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("options", [(), ("--numeric-owner",), ("--full-time",)])
def test_a_listing_that_fits(attempt: Attempt, options: tuple[str, ...], locale: str) -> None:
    tree = sample_stage(attempt.folder / "root")
    for name in (b"latin-\xe9", b"new\nline", b"tab\t", b"back\\slash", b"a -> b", b"101\\101"):
        (tree / "etc" / os.fsdecode(name)).write_bytes(name)
    archive = pack_stage(tree, attempt.folder / "stage3.tar.gz")
    attempt.unpack(archive, listing=listing(tree, *options, locale=locale))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"rwsr-xr-x", b"rwxr-xr-x", "/usr/bin/su is -rws--x--x"),
        (b"./usr/bin/emerge\n", b"./usr/bin/merge\n", "/usr/bin/merge is not there"),
        (b"250/4242", b"251/4242", "/etc/secret belongs to 250/4242, listed is"),
        (b"1,3", b"1,5", "/dev/null is another device"),
        (b"-> usr/bin", b"-> usr/sbin", "/bin leads elsewhere"),
        (b"67108864", b"67108865", "/var/sparse has 67108864 bytes"),
    ],
)
def test_a_listing_that_does_not_fit(attempt: Attempt, old: bytes, new: bytes, told: str) -> None:
    tree = attempt.good.parent / "root"
    text = gzip.decompress(listing(tree, "--numeric-owner"))
    if old == b"rwsr-xr-x":
        old, new = b"rws--x--x", b"rwx--x--x"
    assert old in text
    changed = gzip.compress(text.replace(old, new))
    attempt.refused(attempt.with_members(), told, BinmillError, listing=changed)


def test_a_listing_of_more_than_there_is(attempt: Attempt) -> None:
    text = gzip.decompress(listing(attempt.good.parent / "root"))
    double = gzip.compress(text + text.splitlines(keepends=True)[-1])
    attempt.refused(attempt.with_members(), "it lists", BinmillError, listing=double)


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
def test_a_listing_that_cannot_be_read(
    attempt: Attempt, odd: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt.unpack(attempt.with_members(), listing=odd)
    assert "the CONTENTS of x.tar.gz cannot be read" in capsys.readouterr().out
