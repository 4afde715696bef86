"""DIST lines, public files, and the age of unlisted ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tasks.serve import distfiles

B, S = "b" * 128, "5" * 128


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (f"DIST one-1.tar.gz 7 BLAKE2B {B} SHA512 {S}", ["one-1.tar.gz"]),
        (f"DIST one-1.tar.gz 7 SHA512 {S} BLAKE2B {B} SHA256 aa", ["one-1.tar.gz"]),
        (f"DIST one-1.tar.gz 7 SHA512 {S}", []),  # one digest is not enough
        (f"DIST one-1.tar.gz 7 BLAKE2B {B}", []),
        ("DIST one-1.tar.gz 7", []),
        (f"DIST one-1.tar.gz -7 BLAKE2B {B} SHA512 {S}", []),
        (f"DIST ../one 7 BLAKE2B {B} SHA512 {S}", []),
        (f"DIST .hidden 7 BLAKE2B {B} SHA512 {S}", []),
        (f"DIST a/b 7 BLAKE2B {B} SHA512 {S}", []),
        (f"EBUILD one-1.ebuild 7 BLAKE2B {B} SHA512 {S}", []),
        ("", []),
        ("DIST", []),
    ],
)
def test_dist_line_needs_a_plain_name_and_all_digests(line: str, names: list[str]) -> None:
    assert [name for name, _ in distfiles.dist_lines(f"{line}\n")] == names


def test_hashed_path_is_glep_75() -> None:
    # 8 bits are two hex digits
    name = "foo-1.tar.gz"
    assert distfiles.hashed_path(name) == f"{hashlib.blake2b(name.encode()).hexdigest()[:2]}/{name}"
    assert distfiles.LAYOUT_CONF == "[structure]\n0=filename-hash BLAKE2B 8\n1=flat\n"


def test_age_counts_from_when_a_file_was_first_seen_unlisted() -> None:
    day = 86400.0
    since = distfiles.unlisted_since({"kept", "gone"}, {"kept"}, {}, 100 * day)
    assert since == {"gone": 100 * day}
    assert distfiles.outdated(since, 100 * day, 30) == []
    later = distfiles.unlisted_since({"kept", "gone"}, {"kept"}, since, 129 * day)
    assert later == since
    assert distfiles.outdated(later, 129 * day, 30) == []
    assert distfiles.outdated(later, 130 * day, 30) == ["gone"]
    # listed again, or deleted: the count is forgotten
    assert distfiles.unlisted_since({"kept", "gone"}, {"kept", "gone"}, since, 131 * day) == {}
    assert distfiles.unlisted_since({"kept"}, {"kept"}, since, 131 * day) == {}
    # a clock that was ahead does not keep a file forever
    assert distfiles.unlisted_since({"gone"}, set(), {"gone": 500 * day}, 131 * day) == {
        "gone": 131 * day
    }


@pytest.mark.parametrize(
    ("caches", "public"),
    [
        (["RESTRICT=test\nSLOT=0\n"], True),
        (["SLOT=0\n"], True),
        (["RESTRICT=fetch\n"], False),
        (["RESTRICT=mirror strip\n"], False),
        (["RESTRICT=!free? ( mirror )\n"], False),
        (["RESTRICT=test\n", "RESTRICT=fetch\n"], False),
        (["RESTRICT=test\n", None], False),
        ([None], False),
        ([], False),
    ],
)
def test_distfile_is_public_if_every_ebuild_allows_it(
    tmp_path: Path, caches: list[str | None], public: bool
) -> None:
    write_package(tmp_path, "one", caches)
    assert list(distfiles.listed_distfiles([tmp_path])["shared.tar"].values()) == [public]


def test_one_package_is_enough_to_restrict_a_distfile(tmp_path: Path) -> None:
    write_package(tmp_path, "one", ["SLOT=0\n"])
    write_package(tmp_path, "two", ["RESTRICT=fetch\n"])
    assert list(distfiles.listed_distfiles([tmp_path])["shared.tar"].values()) == [False]


def write_package(tree: Path, name: str, caches: list[str | None]) -> None:
    folder = tree / "app-misc" / name
    folder.mkdir(parents=True)
    (folder / "Manifest").write_text(f"DIST shared.tar 7 BLAKE2B {B} SHA512 {S}\n")
    for number, cache in enumerate(caches):
        (folder / f"{name}-{number}.ebuild").write_text("")
        if cache is not None:
            file = tree / f"metadata/md5-cache/app-misc/{name}-{number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(cache)
