"""Distfiles of a planned package: only intact ones are copied for its build."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tasks.builder import distfiles
from tasks.planner.plan import Distfile
from tests.kit.files import names
from tests.kit.plan_factory import package

CONTENT = b"the bytes of upstream" * 100_000
DIGESTS = {
    "BLAKE2B": hashlib.blake2b(CONTENT).hexdigest(),
    "SHA512": hashlib.sha512(CONTENT).hexdigest(),
}
FILE = Distfile("a.tar", len(CONTENT), DIGESTS)
PACKAGE = package("a/a-1", distfiles=(FILE,))


def test_intact_copy_is_taken_from_any_folder(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    for folder, content in ((bad, CONTENT[::-1]), (good, CONTENT)):
        folder.mkdir()
        (folder / "a.tar").write_bytes(content)
        (folder / "of-another.tar").touch()
    assert distfiles.provide((bad, good), PACKAGE, tmp_path / "own") == []
    assert names(tmp_path / "own") == ["a.tar"]
    assert (tmp_path / "own/a.tar").read_bytes() == CONTENT
    assert (tmp_path / "own/a.tar").stat().st_ino != (good / "a.tar").stat().st_ino
    assert distfiles.missing((bad, good), PACKAGE) == []


@pytest.mark.parametrize("how", ["absent", "other", "short", "long", "link", "fifo", "folder"])
def test_file_that_is_not_intact_is_missing_and_not_copied(tmp_path: Path, how: str) -> None:
    place = tmp_path / "shared/a.tar"
    place.parent.mkdir()
    if how == "link":
        (tmp_path / "target").write_bytes(CONTENT)
        place.symlink_to(tmp_path / "target")
    elif how == "fifo":
        os.mkfifo(place)
    elif how == "folder":
        place.mkdir()
    elif how != "absent":
        other = {"other": CONTENT[::-1], "short": CONTENT[:-1], "long": CONTENT + b"x"}
        place.write_bytes(other[how])
    assert distfiles.provide((place.parent,), PACKAGE, tmp_path / "own") == ["a.tar"]
    assert names(tmp_path / "own") == []
    assert distfiles.missing((place.parent,), PACKAGE) == ["a.tar"]


@pytest.mark.parametrize("wrong", [{"SHA512": "0" * 128}, {"MD5": "0" * 32}], ids=str)
def test_every_digest_counts_and_one_at_least_is_known(
    tmp_path: Path, wrong: dict[str, str]
) -> None:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    digests = {**DIGESTS, **wrong} if "SHA512" in wrong else wrong
    other = package("a/a-1", distfiles=(Distfile("a.tar", len(CONTENT), digests),))
    assert distfiles.provide((tmp_path,), other, tmp_path / "own") == ["a.tar"]
    assert names(tmp_path / "own") == []
