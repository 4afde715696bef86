"""The Packages index: read, completed, written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BinmillError
from tasks.publish.index import make, parse, render

# as Portage 3.0.83 wrote it, shortened
SAMPLE = """\
ACCEPT_KEYWORDS: amd64
ARCH: amd64
GENTOO_MIRRORS: http://inside.example/gentoo
PACKAGES: 2
PROFILE: default/linux/amd64/lab
REPO_REVISIONS: {"gentoo": "0000"}
TIMESTAMP: 1795372402
URI: http://elsewhere.example/
USE: amd64
VERSION: 0

BUILD_ID: 1
BUILD_TIME: 1795372183
CPV: app-arch/bzip2-1.0.8
DEFINED_PHASES: compile install
DESC: bzip2: a compressor
EAPI: 8
IUSE: static-libs
MD5: 00000000000000000000000000000000
MTIME: 1
PATH: app-arch/bzip2/bzip2-1.0.8-1.gpkg.tar
PROVIDES: x86_64: libbz2.so.1.0
RDEPEND: >=sys-libs/zlib-1:= !app-arch/old
REPO: gentoo
SIZE: 5

BUILD_ID: 2
CPV: app-arch/bzip2-1.0.8
PATH: app-arch/bzip2/bzip2-1.0.8-2.gpkg.tar
SLOT: 0

"""
HASH = "6f70679c5c6f38b97e4b33d6a721ba80c49d9100"


def test_what_is_read_is_written_again() -> None:
    assert render(*parse(SAMPLE)) == SAMPLE


def test_parse() -> None:
    header, stanzas = parse(SAMPLE)
    assert header["REPO_REVISIONS"] == '{"gentoo": "0000"}'
    assert [s["BUILD_ID"] for s in stanzas] == ["1", "2"]
    assert stanzas[0]["DESC"] == "bzip2: a compressor"
    assert stanzas[0]["PROVIDES"] == "x86_64: libbz2.so.1.0"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", ({}, [])),
        ("\n\n\n", ({}, [])),
        ("A: 1\n", ({"A": "1"}, [])),
        ("A: 1\n\n\n\nB: 2", ({"A": "1"}, [{"B": "2"}])),
        ("A: 1\nno colon\nB:\n", ({"A": "1"}, [])),
    ],
)
def test_parse_odd_texts(text: str, parsed: object) -> None:
    assert parse(text) == parsed


@pytest.mark.parametrize("letter", "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r")
def test_a_line_ends_with_a_newline_and_nothing_else(letter: str) -> None:
    """A description could else bring fields, and stanzas, of its own."""
    sneaky = f"CPV: a/b-1\nDESC: x{letter}PATH: ../../etc/shadow\n"
    assert parse(f"A: 1\n\n{sneaky}")[1] == [
        {"CPV": "a/b-1", "DESC": f"x{letter}PATH: ../../etc/shadow"}
    ]


def test_packages_are_sorted_by_name_and_number() -> None:
    some = (("b/b-1", "1"), ("a/a-1", "10"), ("a/a-1", "9"))
    stanzas = [{"CPV": cpv, "BUILD_ID": number} for cpv, number in some]
    text = render({"X": "1", "EMPTY": ""}, stanzas)
    assert text.startswith("X: 1\n\n")
    assert [(s["CPV"], s["BUILD_ID"]) for s in parse(text)[1]] == [
        ("a/a-1", "9"), ("a/a-1", "10"), ("b/b-1", "1")
    ]  # fmt: skip


def package(folder: Path, build_id: int = 1, data: bytes = b"signed") -> dict[str, Any]:
    path = f"app-arch/bzip2/bzip2-1.0.8-{build_id}.gpkg.tar"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return {"cpv": "app-arch/bzip2-1.0.8", "build_id": build_id, "path": path, "size": 5}


def test_make(tmp_path: Path) -> None:
    revisions = {"ours": "b" * 40, "gentoo": HASH}
    text = make(SAMPLE, [package(tmp_path)], tmp_path, timestamp=77, revisions=revisions)
    header, (stanza,) = parse(text)
    assert json.loads(header.pop("REPO_REVISIONS")) == revisions
    assert header == {
        "ACCEPT_KEYWORDS": "amd64", "ARCH": "amd64", "PACKAGES": "1", "TIMESTAMP": "77",
        "PROFILE": "default/linux/amd64/lab", "USE": "amd64", "VERSION": "0",
    }  # fmt: skip
    mtime = int((tmp_path / stanza["PATH"]).stat().st_mtime)
    assert stanza == parse(SAMPLE)[1][0] | {
        "SIZE": "6",
        "MD5": hashlib.md5(b"signed").hexdigest(),  # noqa: S324 - what Portage reads
        "SHA1": hashlib.sha1(b"signed").hexdigest(),  # noqa: S324
        "MTIME": str(mtime),
    }
    assert text == make(SAMPLE, [package(tmp_path)], tmp_path, timestamp=77,
                        revisions=dict(reversed(revisions.items())))  # fmt: skip


def test_only_and_all_of_the_set(tmp_path: Path) -> None:
    both = [package(tmp_path, 2), package(tmp_path, 1)]
    header, stanzas = parse(make(SAMPLE, both, tmp_path, timestamp=1, revisions={}))
    assert [s["BUILD_ID"] for s in stanzas] == ["1", "2"]
    assert header["PACKAGES"] == "2"
    assert all(s["SIZE"] and s["MD5"] and s["SHA1"] for s in stanzas)
    assert "REPO_REVISIONS" in header
    assert json.loads(header["REPO_REVISIONS"]) == {}


def test_what_the_chroot_says_of_names_does_not_count(tmp_path: Path) -> None:
    lying = SAMPLE.replace("CPV: app-arch/bzip2-1.0.8\nD", "CPV: sys-apps/shadow-1\nD")
    _, (stanza,) = parse(make(lying, [package(tmp_path)], tmp_path, timestamp=1, revisions={}))
    assert stanza["CPV"] == "app-arch/bzip2-1.0.8"


def test_a_package_that_the_index_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(BinmillError, match=r"app-arch/bzip2-1\.0\.8 is missing in the index"):
        make(SAMPLE, [package(tmp_path, 3)], tmp_path, timestamp=1, revisions={})
    with pytest.raises(BinmillError, match="is missing"):
        make("", [package(tmp_path)], tmp_path, timestamp=1, revisions={})
