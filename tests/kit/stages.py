"""Stage tarballs of a few files, of every kind that a real one has."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

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


def sample_stage(root: Path) -> Path:
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


def exhaustive_stage(root: Path) -> Path:
    """A stage with everything that tar and a file system can store, more than a real one has."""
    sample_stage(root)
    with (root / "var/holes").open(
        "wb"
    ) as holes:  # more than fit into one header of the GNU format
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


def pack_stage(root: Path, target: Path, *options: str, packer: Sequence[str] = ()) -> Path:
    """Pack a tree with all its attributes; the suffix of `target` selects the compression."""
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


def describe_tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Return all about the files of a tree except inode numbers and times of directories."""
    files: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        files[str(path.relative_to(root))] = (
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
    return files
