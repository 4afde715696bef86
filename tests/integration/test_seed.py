"""Stage tarballs through the real tar: what must survive, and what must not get out."""

from __future__ import annotations

import io
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.chroot.seed import check_stage, extract
from tasks.errors import BinmillError, HostLacks, NotTrusted
from tests.conftest import names
from tests.integration.test_command import eventually

pytestmark = pytest.mark.usefixtures("needs_root")

# cap_net_raw=ep, as in linux/capability.h, revision 2
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
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


def packed(root: Path, target: Path) -> Path:
    plain = target.with_suffix("")
    subprocess.run(
        ["tar", "-cSf", plain, "--numeric-owner", "--xattrs", "--xattrs-include=*.*",
         "-C", root, "."],
        check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    with plain.open("rb") as source, target.open("wb") as out:
        subprocess.run([*PACKERS[target.suffix[1:]], "-c"], stdin=source, stdout=out, check=True)
    return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    place = tmp_path_factory.mktemp("stage")
    return packed(stage(place / "root"), place / "stage3.tar.xz")


Extract = Callable[[Path], Path]


@pytest.fixture
def unpack(tmp_path: Path) -> Extract:
    def act(tarball: Path) -> Path:
        extract(tarball, tmp_path / "seeds/id", tmp_path / "trash")
        return tmp_path / "seeds/id"

    return act


def nothing_left(tmp_path: Path) -> bool:
    return not (tmp_path / "seeds/id").exists()


def described(root: Path) -> dict[str, object]:
    """Everything about a tree but for inode numbers and directories' times."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        found[str(path.relative_to(root))] = (
            oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, status.st_nlink,
            None if kind == stat.S_IFDIR else int(status.st_mtime),
            path.read_bytes() if kind == stat.S_IFREG else None,
            path.readlink() if kind == stat.S_IFLNK else None,
            {key: os.getxattr(path, key, follow_symlinks=False)
             for key in os.listxattr(path, follow_symlinks=False)},
        )  # fmt: skip
    return found


@pytest.mark.parametrize("suffix", PACKERS)
def test_everything_survives(tmp_path: Path, unpack: Extract, suffix: str) -> None:
    source = stage(tmp_path / "root")
    root = unpack(packed(source, tmp_path / f"stage3.tar.{suffix}"))
    assert described(root) == described(source)
    assert os.getxattr(root / "bin/ping", "security.capability") == CAPABILITY
    assert (root / "bin/su").stat().st_mode & 0o7777 == 0o4711
    assert (root / "bin/env").samefile(root / "bin/env2")
    assert (root / "var/sparse").stat().st_blocks * 512 < 1 << 20
    assert names(tmp_path / "seeds") == ["id"]


def test_the_umask_does_not_count(whole: Path, unpack: Extract) -> None:
    before = os.umask(0o077)
    try:
        root = unpack(whole)
    finally:
        os.umask(before)
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert root.stat().st_mode & 0o7777 == 0o755


def test_again_after_something_was_left(whole: Path, unpack: Extract, tmp_path: Path) -> None:
    left = tmp_path / "seeds/.id.tmp/usr/bin"
    left.mkdir(parents=True)
    (left / "stale").write_text("")
    root = unpack(whole)
    assert not (root / "usr/bin/stale").exists()
    assert names(tmp_path / "seeds") == ["id"]


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
        bad.write_bytes({
            "truncated": data[:middle],
            "flipped": data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :],
            "empty": b"",
            "html": b"<html><body>Not found</body></html>",
        }[how])  # fmt: skip
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
    check_stage(root)
    root.chmod(mode)
    os.chown(root, owner, 0)
    with pytest.raises(NotTrusted, match="not root's alone"):
        check_stage(root)


def hostile(target: Path, *members: tuple[str, bytes, str]) -> Path:
    """A tarball of members (name, type, what it links to or holds)."""
    with tarfile.open(target, "w:gz") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(content)
            else:
                member.linkname = content
            archive.addfile(member, io.BytesIO(content.encode()))
    return target


FILE, LINK, HARD = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../escaped", FILE, "evil")],
        [("usr/../../escaped", FILE, "evil")],
        [("{out}/escaped", FILE, "evil")],
        [("link", LINK, "{out}"), ("link/escaped", FILE, "evil")],
        [("link", LINK, "../../out"), ("link/escaped", FILE, "evil")],
        [("a", LINK, "b"), ("b", LINK, "{out}"), ("a/escaped", FILE, "evil")],
        [("link", LINK, "{out}/there"), ("link", FILE, "evil")],
        [("hard", HARD, "{out}/there"), ("hard", FILE, "evil")],
        [("hard", HARD, "../../out/there"), ("hard", FILE, "evil")],
        [("link", LINK, "{out}/there"), ("hard", HARD, "link"), ("hard", FILE, "evil")],
        [("d/", tarfile.DIRTYPE, ""), ("d", LINK, "{out}"), ("d/escaped", FILE, "evil")],
    ],
)
def test_nothing_is_written_outside(
    unpack: Extract, tmp_path: Path, members: list[tuple[str, bytes, str]]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "there").write_text("mine")
    filled = [(n.format(out=out), kind, to.format(out=out)) for n, kind, to in members]
    with pytest.raises(BinmillError):  # none of these is a stage, either
        unpack(hostile(tmp_path / "x.tar.gz", *filled))
    assert names(out) == ["there"]
    assert (out / "there").read_text() == "mine"
    assert not list(tmp_path.rglob("escaped")) or all(
        path.is_relative_to(tmp_path / "seeds") for path in tmp_path.rglob("escaped")
    )
    assert nothing_left(tmp_path)


def test_killed_in_the_middle(whole: Path, unpack: Extract, tmp_path: Path) -> None:
    """A pipe in place of xz holds the extraction where it is killed."""
    slow = tmp_path / "bin"
    slow.mkdir()
    real = shutil.which("xz")
    (slow / "xz").write_text(f"#!/bin/sh\n{real} -dc {whole} | head -c 30000\nexec sleep 60\n")
    (slow / "xz").chmod(0o755)
    script = (
        "import sys; from pathlib import Path; from tasks.chroot.seed import extract\n"
        "extract(*map(Path, sys.argv[1:]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, whole, tmp_path / "seeds/id", tmp_path / "trash"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PATH": f"{slow}:{os.environ['PATH']}"},
    ) as process:
        begun = eventually((tmp_path / "seeds/.id.tmp/usr/bin").exists)
        process.send_signal(signal.SIGKILL)
    assert begun
    assert nothing_left(tmp_path)
    assert described(unpack(whole)) == described(whole.parent / "root")
    assert names(tmp_path / "seeds") == ["id"]
    assert names(tmp_path / "trash") == []


def test_only_root_can(whole: Path, unpack: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostLacks, match="only root can unpack a stage"):
        unpack(whole)
