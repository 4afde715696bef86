"""The lists of the paths of packages: an image is read once, and a damaged list is made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import NotTrusted
from tasks.publish import contents
from tasks.system.files import sha512
from tests.kit.packages import gpkg
from tests.kit.refused import refused

PATHS = ["/usr/bin/hello"]


def test_image_is_read_once(tmp_path: Path) -> None:
    package, folder = gpkg(tmp_path / "x.gpkg.tar"), tmp_path / "root/contents"
    digest = sha512(package)
    assert contents.paths(folder, package, digest) == PATHS
    package.unlink()
    assert contents.paths(folder, package, digest) == PATHS
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", [b"", b"[]", b'["/other"]', b"\xff\n", b"0" * 64 + b"\n[]"])
def test_damaged_list_is_made_again(tmp_path: Path, text: bytes) -> None:
    package, folder = gpkg(tmp_path / "x.gpkg.tar"), tmp_path / "contents"
    digest = sha512(package)
    contents.paths(folder, package, digest)
    (folder / digest).write_bytes(text)
    assert contents.paths(folder, package, digest) == PATHS


@pytest.mark.parametrize("digest", ["a" * 128, "", "../x"])
def test_package_that_is_not_the_one_of_the_index_is_refused(tmp_path: Path, digest: str) -> None:
    package, folder = gpkg(tmp_path / "x.gpkg.tar"), tmp_path / "contents"
    with refused(NotTrusted, "package-differs"):
        contents.paths(folder, package, digest)
    assert not folder.exists()
