"""The search for secrets finds them where they are packed: a check that cannot fail is none."""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path

import pytest

from tests.kit.packages import PACKERS, gpkg, parts, tar
from tests.kit.secret_search import leaks

SECRET = "sesame-open-0815"
TEXT = f"http://me:{SECRET}@x".encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain", TEXT),
        ("a.gz", gzip.compress(TEXT)),
        ("a.bz2", bz2.compress(TEXT)),
        ("a.tar", tar([("b/environment.bz2", bz2.compress(TEXT))])),
        ("a.tar.gz", gzip.compress(tar([("b", TEXT)]))),
        ("a.tar.zst", PACKERS[".zst"](tar([("b", TEXT)]))),
        ("c" * 38, zlib.compress(TEXT)),
        ("basic", b"Authorization: Basic bWU6c2VzYW1lLW9wZW4tMDgxNQ=="),
        (f"name-{SECRET}", b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_packed_secret_is_found(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "other").write_bytes(b"nothing")
    places = leaks(tmp_path, SECRET)
    assert places
    assert all(place.startswith(name) for place in places)


def test_secret_in_a_package_is_found(tmp_path: Path) -> None:
    gpkg(tmp_path / "x.gpkg.tar")
    assert leaks(tmp_path, SECRET) == []
    gpkg(tmp_path / "x.gpkg.tar", parts({"CATEGORY": SECRET}))
    (place,) = leaks(tmp_path, SECRET)
    assert "CATEGORY" in place
