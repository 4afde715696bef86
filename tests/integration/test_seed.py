"""Stage tarballs through the real tar: what must survive, and what must not get out."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BinmillError, HostLacks, NotTrusted
from tasks.seed import extract as unpacking
from tasks.seed.extract import Archive, extract
from tasks.seed.sanity import check
from tasks.system import tree_manifest
from tasks.system.files import sha512
from tests.kit.files import names
from tests.kit.processes import eventually
from tests.kit.project import PROJECT
from tests.kit.stages import (
    ACL,
    CAPABILITY,
    describe_tree,
    exhaustive_stage,
    pack_stage,
    sample_stage,
)

pytestmark = pytest.mark.usefixtures("needs_root")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    place = tmp_path_factory.mktemp("stage")
    return pack_stage(sample_stage(place / "root"), place / "stage3.tar.xz")


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


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    return exhaustive_stage(tmp_path_factory.mktemp("full") / "root")


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
    archive = pack_stage(full, tmp_path / f"stage3.tar{suffix}", packer=packer)
    if suffix == ".xz":
        told = subprocess.run(["xz", "--robot", "-l", archive], capture_output=True, check=True)
        blocks = int(told.stdout.split(b"totals\t")[1].split(b"\t")[1])
        assert (blocks > 1) == (packing == "many blocks")
    root = unpack(archive)
    assert describe_tree(root) == describe_tree(full)
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
    archive = pack_stage(full, tmp_path / "stage3.tar.gz", f"--sparse-version={sparse}")
    root = unpack(archive)
    assert describe_tree(root) == describe_tree(full)
    assert (root / "var/holes").stat().st_blocks * 512 < 1 << 20


def test_gnu_format(full: Path, unpack: Extract, tmp_path: Path) -> None:
    """It has no extended attributes; all else it has, in ways of its own."""
    archive = tmp_path / "stage3.tar.gz"
    subprocess.run(
        ["tar", "-czSf", archive, "--numeric-owner", "--format=gnu", "-C", full, "."], check=True
    )
    plain = {path: facts[:-1] for path, facts in describe_tree(full).items()}
    root = unpack(archive)
    assert {path: facts[:-1] for path, facts in describe_tree(root).items()} == plain
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
    plain = describe_tree(unpack(whole))
    shutil.rmtree(tmp_path / "seeds")
    (tmp_path / "seeds").mkdir()
    os.setxattr(tmp_path / "seeds", "system.posix_acl_default", ACL)
    (tmp_path / "seeds/other").mkdir()
    assert os.listxattr(tmp_path / "seeds/other"), "this file system has access lists"
    root = unpack(whole)
    assert describe_tree(root) == plain
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
    root = sample_stage(tmp_path / "root")
    if missing == "usr/bin":
        shutil.rmtree(root / missing)
    else:
        (root / missing).unlink()
    with pytest.raises(NotTrusted, match="this is no Gentoo stage"):
        unpack(pack_stage(root, tmp_path / "x.tar.gz"))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o775, 0), (0o755, 250)])
def test_a_root_directory_that_others_may_write(tmp_path: Path, mode: int, owner: int) -> None:
    root = sample_stage(tmp_path / "root")
    check(root)
    root.chmod(mode)
    os.chown(root, owner, 0)
    with pytest.raises(NotTrusted, match="not root's alone"):
        check(root)


def test_killed_in_the_middle(whole: Path, unpack: Extract, tmp_path: Path) -> None:
    """A slow decompressor holds the extraction where it is killed."""
    big = sample_stage(tmp_path / "root")
    (big / "aaa").write_bytes(os.urandom(4 << 20))
    archive = pack_stage(big, tmp_path / "stage3.tar.xz", "--sort=name")
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
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{slow}:{os.environ['PATH']}"},
    ) as process:
        begun = eventually((tmp_path / "seeds/.id.tmp/aaa").exists)
        process.send_signal(signal.SIGKILL)
    assert begun
    assert not (tmp_path / "seeds/id").exists()
    assert describe_tree(unpack(whole)) == describe_tree(whole.parent / "root")
    assert names(tmp_path / "seeds") == ["id", "id.listing"]
    assert names(tmp_path / "trash") == []


def test_only_root_can(whole: Path, unpack: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostLacks, match="only root can unpack a stage"):
        unpack(whole)
