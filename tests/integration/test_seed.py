"""Stage tarballs through the real tar: what must survive, and what must not get out."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BinmillError, HostLacks, NotTrusted
from tasks.seed import extract as unpacking
from tasks.seed.extract import Archive, extract
from tasks.seed.sanity import check
from tasks.system import tree_manifest
from tasks.system.files import sha512
from tests.conftest import names
from tests.integration.test_command import eventually

pytestmark = pytest.mark.usefixtures("needs_root")

# cap_net_raw=ep, as in linux/capability.h, revision 2
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
# user::rw- user:1000:rw- group::r-- mask::rw- other::---, as in linux/posix_acl_xattr.h
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (1, 6, 2**32 - 1),
        (2, 6, 1000),
        (4, 4, 2**32 - 1),
        (16, 6, 2**32 - 1),
        (32, 0, 2**32 - 1),
    )
)
PACKERS = {"xz": ("xz", "-0"), "zst": ("zstd", "-1"), "bz2": ("bzip2",), "gz": ("gzip", "-1")}


def stage(root: Path) -> Path:
    """A stage of a few files, of every kind that a real one has."""
    for folder in ("usr/bin", "etc", "dev", "tmp", "var/empty"):
        (root / folder).mkdir(parents=True)
    for name in ("sh", "env", "emerge", "ping", "su"):
        (root / "usr/bin" / name).write_text(f"#!/bin/sh\n# {name}\n")
        (root / "usr/bin" / name).chmod(0o755)
    root.chmod(0o755)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/env2").hardlink_to(root / "usr/bin/env")
    os.setxattr(root / "usr/bin/ping", "security.capability", CAPABILITY)
    os.setxattr(root / "usr/bin/emerge", "user.note", b"kept")
    (root / "usr/bin/su").chmod(0o4711)
    (root / "tmp").chmod(0o1777)
    (root / "etc/portage").mkdir(mode=0o750)
    (root / "etc/secret").write_text("x")
    (root / "etc/secret").chmod(0o640)
    os.chown(root / "etc/secret", 250, 4242)
    os.chown(root / "etc/portage", 123456, 250)
    try:
        os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs to make device nodes: run outside of an unprivileged container")
    os.mkfifo(root / "dev/initctl", 0o600)
    with (root / "var/sparse").open("wb") as sparse:
        sparse.truncate(64 << 20)
        sparse.seek(32 << 20)
        sparse.write(b"island")
    os.utime(root / "etc/secret", (1000, 1000))
    (root / "etc/\u00e9 \u4e2d").write_text("")
    return root


def everything(root: Path) -> Path:
    """A stage with more than a real one has: all that tar and a file system can keep."""
    stage(root)
    with (root / "var/holes").open("wb") as holes:  # more than one header of GNU's has room for
        for number in range(60):
            holes.seek(number << 18)
            holes.write(b"island %d" % number)
        holes.truncate(32 << 20)
    deep = root.joinpath("var", *("d" * 90 for _ in range(12)))
    deep.mkdir(parents=True)
    (deep / ("n" * 255)).write_text("deep")
    (root / "etc/long").symlink_to("/" + "t/" * 700 + "arget")
    (root / "etc/gone").symlink_to("/nowhere/../at all")
    os.lchown(root / "etc/gone", 7, 8)
    for name in (b"latin-\xe9", b"new\nline", b"back\\slash", b"-dash", b"a -> b", b"x link to y"):
        (root / "etc" / os.fsdecode(name)).write_bytes(name)
    (root / "usr/bin/su-again").hardlink_to(root / "usr/bin/su")
    (root / "usr/bin/wall").write_text("x")
    os.chown(root / "usr/bin/wall", 0, 5)
    (root / "usr/bin/wall").chmod(0o2755)
    (root / "var/mail").mkdir()
    os.chown(root / "var/mail", 0, 12)
    (root / "var/mail").chmod(0o3775)
    (root / "var/huge-owner").write_text("")
    os.chown(root / "var/huge-owner", 4_000_000_000, 3_000_000_000)
    (root / "var/none").write_text("")
    (root / "var/none").chmod(0)
    os.setxattr(root / "var/empty", "user.folder", b"\0binary\xff")
    os.setxattr(root / "var/huge-owner", "user.a=b", b"x" * 2000)
    os.setxattr(root / "etc/secret", "system.posix_acl_access", ACL)
    os.setxattr(root / "var/empty", "system.posix_acl_default", ACL)
    for device, major, minor in (("console", 5, 1), ("tty7", 4, 7), ("urandom", 1, 9)):
        os.mknod(root / "dev" / device, 0o620 | stat.S_IFCHR, os.makedev(major, minor))
    (root / "var/before-1970").write_text("")
    os.utime(root / "var/before-1970", (-1000, -1000))
    return root


def packed(root: Path, target: Path, *options: str, packer: Sequence[str] = ()) -> Path:
    """The tarball of a tree, with all its attributes, compressed as its name says."""
    plain = target.with_suffix("")
    subprocess.run(
        [
            "tar",
            "-cSf",
            plain,
            "--numeric-owner",
            "--acls",
            "--xattrs",
            "--xattrs-include=*.*",
            *options,
            "-C",
            root,
            ".",
        ],
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    command = [*(packer or PACKERS[target.suffix[1:]]), "-c"]
    with plain.open("rb") as source, target.open("wb") as out:
        subprocess.run(command, stdin=source, stdout=out, check=True)
    return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    place = tmp_path_factory.mktemp("stage")
    return packed(stage(place / "root"), place / "stage3.tar.xz")


Extract = Callable[..., Path]


@pytest.fixture
def unpack(tmp_path: Path) -> Extract:
    def act(tarball: Path, **more: Any) -> Path:
        with tarball.open("rb") as stream:
            archive = Archive(stream, tarball.name, sha512(tarball), **more)
            extract(archive, tmp_path / "seeds/id", tmp_path / "trash")
        listed = tmp_path / "seeds/id.listing"
        assert (
            list(tree_manifest.differences(tmp_path / "seeds/id", listed)) == []
        )  # what fsck looks at
        return tmp_path / "seeds/id"

    return act


def nothing_left(tmp_path: Path) -> bool:
    return names(tmp_path / "seeds") == [] and names(tmp_path / "trash") == []


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree but for inode numbers and directories' times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        found[str(path.relative_to(root))] = (
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_rdev,
            status.st_nlink,
            None if kind == stat.S_IFDIR else int(status.st_mtime),
            path.read_bytes() if kind == stat.S_IFREG else None,
            path.readlink() if kind == stat.S_IFLNK else None,
            {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            },
        )
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    return everything(tmp_path_factory.mktemp("full") / "root")


PACKINGS = {
    "one block": (("xz", "-0"), ".xz"),
    "many blocks": (("xz", "-0", "-T2", "--block-size=16KiB"), ".xz"),
    "zst": (("zstd", "-1", "-q"), ".zst"),
    "zst, long": (("zstd", "-1", "-q", "--long=30"), ".zst"),
    "bz2": (("bzip2",), ".bz2"),
    "gz": (("gzip", "-1"), ".gz"),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_everything_survives(full: Path, unpack: Extract, tmp_path: Path, packing: str) -> None:
    packer, suffix = PACKINGS[packing]
    archive = packed(full, tmp_path / f"stage3.tar{suffix}", packer=packer)
    if suffix == ".xz":
        told = subprocess.run(["xz", "--robot", "-l", archive], capture_output=True, check=True)
        blocks = int(told.stdout.split(b"totals\t")[1].split(b"\t")[1])
        assert (blocks > 1) == (packing == "many blocks")
    root = unpack(archive)
    assert described(root) == described(full)
    assert os.getxattr(root / "bin/ping", "security.capability") == CAPABILITY
    assert (root / "bin/su").stat().st_mode & 0o7777 == 0o4711
    assert (root / "bin/env").samefile(root / "bin/env2")
    for sparse in ("sparse", "holes"):
        assert (root / "var" / sparse).stat().st_blocks * 512 < 1 << 20
    assert names(tmp_path / "seeds") == ["id", "id.listing"]


@pytest.mark.parametrize("sparse", ["0.0", "0.1", "1.0"])
def test_every_way_to_store_a_sparse_file(
    full: Path, unpack: Extract, tmp_path: Path, sparse: str
) -> None:
    archive = packed(full, tmp_path / "stage3.tar.gz", f"--sparse-version={sparse}")
    root = unpack(archive)
    assert described(root) == described(full)
    assert (root / "var/holes").stat().st_blocks * 512 < 1 << 20


def test_gnu_format(full: Path, unpack: Extract, tmp_path: Path) -> None:
    """It has no extended attributes; all else it has, in ways of its own."""
    archive = tmp_path / "stage3.tar.gz"
    subprocess.run(
        ["tar", "-czSf", archive, "--numeric-owner", "--format=gnu", "-C", full, "."], check=True
    )
    plain = {path: facts[:-1] for path, facts in described(full).items()}
    root = unpack(archive)
    assert {path: facts[:-1] for path, facts in described(root).items()} == plain
    assert (root / "var/holes").stat().st_blocks * 512 < 1 << 20


ORDERS: dict[str, Callable[[list[str], list[str]], list[str]]] = {
    "usual": lambda _folders, _files: ["."],
    "files last": lambda folders, files: ["--no-recursion", *folders, *files],
    "spelled in two ways": lambda folders, files: [
        "--no-recursion",
        *folders,
        *(each.removeprefix("./") for each in files),
    ],
}


@pytest.mark.parametrize("order", ORDERS)
def test_times_of_directories(
    whole: Path, unpack: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Whatever the order of the entries, they survive; only an unusual one costs a second go."""
    begun: list[Path] = []
    begin = unpacking._begun

    def noted(scratch: Path) -> Path:
        begun.append(scratch)
        return begin(scratch)

    monkeypatch.setattr(unpacking, "_begun", noted)
    source = tmp_path / "source"
    source.mkdir()
    subprocess.run(["tar", "-xpf", whole, "-C", source], check=True)
    every = [f"./{path.relative_to(source)}" for path in sorted(source.rglob("*"))]
    folders = [each for each in every if stat.S_ISDIR((source / each).lstat().st_mode)]
    wanted = {name: 1_000_000.0 + number for number, name in enumerate([".", *folders])}
    for name, seconds in wanted.items():
        os.utime(source / name, (seconds, seconds))
    words = ORDERS[order]([".", *folders], [each for each in every if each not in folders])
    archive = tmp_path / "stage3.tar.gz"
    subprocess.run(["tar", "-czf", archive, "--numeric-owner", "-C", source, *words], check=True)
    root = unpack(archive)
    assert {name: (root / name).stat().st_mtime for name in wanted} == wanted
    assert len(begun) == (1 if order == "usual" else 2)


def test_the_umask_does_not_count(whole: Path, unpack: Extract) -> None:
    before = os.umask(0o077)
    try:
        root = unpack(whole)
    finally:
        os.umask(before)
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert root.stat().st_mode & 0o7777 == 0o755


def test_access_lists_are_not_inherited(whole: Path, unpack: Extract, tmp_path: Path) -> None:
    plain = described(unpack(whole))
    shutil.rmtree(tmp_path / "seeds")
    (tmp_path / "seeds").mkdir()
    os.setxattr(tmp_path / "seeds", "system.posix_acl_default", ACL)
    (tmp_path / "seeds/other").mkdir()
    assert os.listxattr(tmp_path / "seeds/other"), "this file system has access lists"
    root = unpack(whole)
    assert described(root) == plain
    assert os.listxattr(root) == []


def test_again_after_something_was_left(whole: Path, unpack: Extract, tmp_path: Path) -> None:
    left = tmp_path / "seeds/.id.tmp/usr/bin"
    left.mkdir(parents=True)
    (left / "stale").write_text("")
    root = unpack(whole)
    assert not (root / "usr/bin/stale").exists()
    assert names(tmp_path / "seeds") == ["id", "id.listing"]


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "html", "tar cut"])
def test_a_damaged_archive(whole: Path, unpack: Extract, tmp_path: Path, how: str) -> None:
    data = whole.read_bytes()
    bad = tmp_path / "stage3.tar.xz"
    if how == "tar cut":
        plain = subprocess.run(["xz", "-dc", whole], check=True, capture_output=True).stdout
        bad = tmp_path / "stage3.tar.gz"
        pack = subprocess.run(["gzip", "-c"], input=plain[:5000], capture_output=True, check=True)
        bad.write_bytes(pack.stdout)
    else:
        middle = len(data) // 2
        bad.write_bytes(
            {
                "truncated": data[:middle],
                "flipped": data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :],
                "empty": b"",
                "html": b"<html><body>Not found</body></html>",
            }[how]
        )
    with pytest.raises(BinmillError) as refused:
        unpack(bad)
    assert "\n" not in refused.value.message
    assert refused.value.hint
    assert nothing_left(tmp_path)
    assert names(unpack(whole)) == names(whole.parent / "root")  # and then again


def test_an_unknown_compression(whole: Path, unpack: Extract, tmp_path: Path) -> None:
    bad = tmp_path / "stage3.tar.lzo"
    shutil.copy(whole, bad)
    with pytest.raises(BinmillError, match="compressed in an unknown way"):
        unpack(bad)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("missing", ["usr/bin/emerge", "usr/bin/env", "bin", "usr/bin"])
def test_not_a_stage(unpack: Extract, tmp_path: Path, missing: str) -> None:
    root = stage(tmp_path / "root")
    if missing == "usr/bin":
        shutil.rmtree(root / missing)
    else:
        (root / missing).unlink()
    with pytest.raises(NotTrusted, match="this is no Gentoo stage"):
        unpack(packed(root, tmp_path / "x.tar.gz"))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o775, 0), (0o755, 250)])
def test_a_root_directory_that_others_may_write(tmp_path: Path, mode: int, owner: int) -> None:
    root = stage(tmp_path / "root")
    check(root)
    root.chmod(mode)
    os.chown(root, owner, 0)
    with pytest.raises(NotTrusted, match="not root's alone"):
        check(root)


def test_killed_in_the_middle(whole: Path, unpack: Extract, tmp_path: Path) -> None:
    """A slow decompressor holds the extraction where it is killed."""
    big = stage(tmp_path / "root")
    (big / "aaa").write_bytes(os.urandom(4 << 20))
    archive = packed(big, tmp_path / "stage3.tar.xz", "--sort=name")
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "xz").write_text(f"#!/bin/sh\n{shutil.which('xz')} -dc | head -c 3m\nexec sleep 60\n")
    (slow / "xz").chmod(0o755)
    script = (
        "import sys; from pathlib import Path\n"
        "from tasks.chroot.unpack import Archive, extract\n"
        "extract(Archive(open(sys.argv[1], 'rb'), 'x.tar.xz', ''), *map(Path, sys.argv[2:]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, archive, tmp_path / "seeds/id", tmp_path / "trash"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PATH": f"{slow}:{os.environ['PATH']}"},
    ) as process:
        begun = eventually((tmp_path / "seeds/.id.tmp/aaa").exists)
        process.send_signal(signal.SIGKILL)
    assert begun
    assert not (tmp_path / "seeds/id").exists()
    assert described(unpack(whole)) == described(whole.parent / "root")
    assert names(tmp_path / "seeds") == ["id", "id.listing"]
    assert names(tmp_path / "trash") == []


def test_only_root_can(whole: Path, unpack: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostLacks, match="only root can unpack a stage"):
        unpack(whole)
