"""Extraction of stage tarballs with the real tar: everything in them must survive."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import BinmillError, HostLacks, NotTrusted
from tasks.seed import extract as extract_module
from tasks.seed import sanity
from tasks.seed.extract import Archive, extract
from tasks.seed.tar_stream import ArchiveRefused
from tasks.system import tree_manifest
from tasks.system.files import sha512
from tests.kit.files import names
from tests.kit.processes import eventually
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.kit.stages import (
    ACL,
    CAPABILITY,
    describe_tree,
    exhaustive_stage,
    pack_stage,
    sample_stage,
)
from tests.programs import extract_stage

pytestmark = pytest.mark.usefixtures("needs_root")


@pytest.fixture(scope="module")
def stage_tarball(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    place = tmp_path_factory.mktemp("stage")
    return pack_stage(sample_stage(place / "root"), place / "stage3.tar.xz")


Unpack = Callable[[Path], Path]


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    """Unpack a tarball; the listing for `doit fsck` must match the result."""

    def act(tarball: Path) -> Path:
        root = tmp_path / "seeds/id"
        with tarball.open("rb") as stream:
            extract(Archive(stream, tarball.name, sha512(tarball)), root, tmp_path / "trash")
        listing, chosen = tmp_path / "seeds/id.listing", tree_manifest.CAPABILITIES
        assert list(tree_manifest.differences(root, listing, chosen=chosen)) == []
        return root

    return act


def nothing_left(tmp_path: Path) -> bool:
    return names(tmp_path / "seeds") == [] and names(tmp_path / "trash") == []


@pytest.fixture(scope="module")
def exhaustive_root(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    return exhaustive_stage(tmp_path_factory.mktemp("exhaustive") / "root")


PACKINGS = {
    "one block": (("xz", "-0"), ".xz"),
    "many blocks": (("xz", "-0", "-T2", "--block-size=16KiB"), ".xz"),
    "zst": (("zstd", "-1", "-q"), ".zst"),
    "zst, long": (("zstd", "-1", "-q", "--long=30"), ".zst"),
    "bz2": (("bzip2",), ".bz2"),
    "gz": (("gzip", "-1"), ".gz"),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_extract_keeps_everything_of_any_compression(
    exhaustive_root: Path, unpack: Unpack, tmp_path: Path, packing: str
) -> None:
    packer, suffix = PACKINGS[packing]
    archive = pack_stage(exhaustive_root, tmp_path / f"stage3.tar{suffix}", packer=packer)
    if suffix == ".xz":
        blocks_listed = subprocess.run(
            ["xz", "--robot", "-l", archive], capture_output=True, check=True
        )
        blocks = int(blocks_listed.stdout.split(b"totals\t")[1].split(b"\t")[1])
        assert (blocks > 1) == (packing == "many blocks")
    root = unpack(archive)
    assert describe_tree(root) == describe_tree(exhaustive_root)
    assert os.getxattr(root / "bin/ping", "security.capability") == CAPABILITY
    assert (root / "bin/su").stat().st_mode & 0o7777 == 0o4711
    assert (root / "bin/env").samefile(root / "bin/env2")
    for sparse in ("sparse", "holes"):
        assert (root / "var" / sparse).stat().st_blocks * 512 < 1 << 20
    assert names(tmp_path / "seeds") == ["id", "id.listing"]


@pytest.mark.parametrize("sparse", ["0.0", "0.1", "1.0"])
def test_extract_keeps_sparse_files_of_every_format(
    exhaustive_root: Path, unpack: Unpack, tmp_path: Path, sparse: str
) -> None:
    archive = pack_stage(exhaustive_root, tmp_path / "stage3.tar.gz", f"--sparse-version={sparse}")
    root = unpack(archive)
    assert describe_tree(root) == describe_tree(exhaustive_root)
    assert (root / "var/holes").stat().st_blocks * 512 < 1 << 20


def test_extract_of_gnu_format_keeps_all_that_it_can_store(
    exhaustive_root: Path, unpack: Unpack, tmp_path: Path
) -> None:
    """It has no extended attributes."""
    archive = tmp_path / "stage3.tar.gz"
    subprocess.run(
        ["tar", "-czSf", archive, "--numeric-owner", "--format=gnu", "-C", exhaustive_root, "."],
        check=True,
    )
    plain = {path: facts[:-1] for path, facts in describe_tree(exhaustive_root).items()}
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
def test_extract_of_any_order_keeps_times_of_directories(
    stage_tarball: Path, unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Only an unusual order costs a second pass."""
    passes: list[Path] = []
    make_scratch = extract_module._make_scratch

    def counting(scratch: Path) -> Path:
        passes.append(scratch)
        return make_scratch(scratch)

    monkeypatch.setattr(extract_module, "_make_scratch", counting)
    source = tmp_path / "source"
    source.mkdir()
    subprocess.run(["tar", "-xpf", stage_tarball, "-C", source], check=True)
    every = [f"./{path.relative_to(source)}" for path in sorted(source.rglob("*"))]
    folders = [each for each in every if stat.S_ISDIR((source / each).lstat().st_mode)]
    expected = {name: 1_000_000.0 + number for number, name in enumerate([".", *folders])}
    for name, seconds in expected.items():
        os.utime(source / name, (seconds, seconds))
    words = ORDERS[order]([".", *folders], [each for each in every if each not in folders])
    archive = tmp_path / "stage3.tar.gz"
    subprocess.run(["tar", "-czf", archive, "--numeric-owner", "-C", source, *words], check=True)
    root = unpack(archive)
    assert {name: (root / name).stat().st_mtime for name in expected} == expected
    assert len(passes) == (1 if order == "usual" else 2)


def test_extract_ignores_the_umask(stage_tarball: Path, unpack: Unpack) -> None:
    before = os.umask(0o077)
    try:
        root = unpack(stage_tarball)
    finally:
        os.umask(before)
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert root.stat().st_mode & 0o7777 == 0o755


def test_extract_ignores_default_access_lists_of_the_parent(
    stage_tarball: Path, unpack: Unpack, tmp_path: Path
) -> None:
    plain = describe_tree(unpack(stage_tarball))
    shutil.rmtree(tmp_path / "seeds")
    (tmp_path / "seeds").mkdir()
    os.setxattr(tmp_path / "seeds", "system.posix_acl_default", ACL)
    (tmp_path / "seeds/other").mkdir()
    assert os.listxattr(tmp_path / "seeds/other"), "this file system has access lists"
    root = unpack(stage_tarball)
    assert describe_tree(root) == plain
    assert os.listxattr(root) == []


def test_extract_deletes_leftovers_of_a_killed_run(
    stage_tarball: Path, unpack: Unpack, tmp_path: Path
) -> None:
    left = tmp_path / "seeds/.id.tmp/usr/bin"
    left.mkdir(parents=True)
    (left / "stale").write_text("")
    root = unpack(stage_tarball)
    assert not (root / "usr/bin/stale").exists()
    assert names(tmp_path / "seeds") == ["id", "id.listing"]


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "html", "tar cut"])
def test_extract_of_a_damaged_archive_is_refused(
    stage_tarball: Path, unpack: Unpack, tmp_path: Path, how: str
) -> None:
    data = stage_tarball.read_bytes()
    bad = tmp_path / "stage3.tar.xz"
    if how == "tar cut":
        plain = subprocess.run(["xz", "-dc", stage_tarball], check=True, capture_output=True).stdout
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
    with pytest.raises(BinmillError) as excinfo:
        unpack(bad)
    if how != "flipped":  # the reason depends on the flipped byte
        assert (excinfo.value.code, excinfo.value.fields["reason"]) == (
            "stage-refused",
            "tar-truncated",
        )
    assert "\n" not in excinfo.value.message
    assert excinfo.value.hint
    assert nothing_left(tmp_path)
    assert names(unpack(stage_tarball)) == names(stage_tarball.parent / "root")


def test_extract_of_an_unknown_compression_fails(
    stage_tarball: Path, unpack: Unpack, tmp_path: Path
) -> None:
    bad = tmp_path / "stage3.tar.lzo"
    shutil.copy(stage_tarball, bad)
    with refused(BinmillError, "stage-compression-unknown", archive="stage3.tar.lzo"):
        unpack(bad)
    assert nothing_left(tmp_path)


def test_extract_with_damage_after_the_end_of_the_tar_fails(
    stage_tarball: Path, unpack: Unpack, tmp_path: Path
) -> None:
    bad = tmp_path / "stage3.tar.gz"
    plain = subprocess.run(["xz", "-dc", stage_tarball], check=True, capture_output=True).stdout
    data = bytearray(gzip.compress(plain))
    data[-8] ^= 0xFF  # its checksum
    bad.write_bytes(data)
    with refused(BinmillError, "stage-damaged", decompressor="gzip"):
        unpack(bad)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("absent", "path"),
    [
        ("usr/bin/emerge", "usr/bin/emerge"),
        ("usr/bin/env", "usr/bin/env"),
        ("bin", "bin/sh"),
        ("usr/bin", "bin/sh"),
    ],
)
def test_extract_of_a_tree_without_a_required_file_is_refused(
    unpack: Unpack, tmp_path: Path, absent: str, path: str
) -> None:
    root = sample_stage(tmp_path / "root")
    if absent == "usr/bin":
        shutil.rmtree(root / absent)
    else:
        (root / absent).unlink()
    with refused(NotTrusted, "stage-refused", reason="stage-lacks-file") as excinfo:
        unpack(pack_stage(root, tmp_path / "x.tar.gz"))
    assert f"/{path}" in excinfo.value.message
    assert nothing_left(tmp_path)


@pytest.mark.parametrize(("mode", "owner"), [(0o777, 0), (0o775, 0), (0o755, 250)])
def test_sanity_of_a_root_directory_that_others_can_write_to_is_refused(
    tmp_path: Path, mode: int, owner: int
) -> None:
    root = sample_stage(tmp_path / "root")
    sanity.check(root)
    root.chmod(mode)
    os.chown(root, owner, 0)
    with refused(ArchiveRefused, "stage-root-writable"):
        sanity.check(root)


def test_extract_killed_in_the_middle_can_be_repeated(
    stage_tarball: Path, unpack: Unpack, tmp_path: Path
) -> None:
    """A decompressor that stops in the middle leaves time for the kill."""
    big = sample_stage(tmp_path / "root")
    (big / "aaa").write_bytes(os.urandom(4 << 20))
    archive = pack_stage(big, tmp_path / "stage3.tar.xz", "--sort=name")
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "xz").write_text(f"#!/bin/sh\n{shutil.which('xz')} -dc | head -c 3m\nexec sleep 60\n")
    (slow / "xz").chmod(0o755)
    with subprocess.Popen(
        python(extract_stage, archive, tmp_path / "seeds/id", tmp_path / "trash"),
        cwd=PROJECT,
        env={**os.environ, "PATH": f"{slow}:{os.environ['PATH']}"},
    ) as process:
        unpacking = eventually((tmp_path / "seeds/.id.tmp/aaa").exists)
        process.send_signal(signal.SIGKILL)
    assert unpacking
    assert not (tmp_path / "seeds/id").exists()
    assert describe_tree(unpack(stage_tarball)) == describe_tree(stage_tarball.parent / "root")
    assert names(tmp_path / "seeds") == ["id", "id.listing"]
    assert names(tmp_path / "trash") == []


def test_extract_by_another_user_than_root_fails(
    stage_tarball: Path, unpack: Unpack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostLacks, match="only root can unpack a stage"):
        unpack(stage_tarball)
