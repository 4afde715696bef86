"""The Packages index: read, completed, written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.domain import Package
from tasks.errors import BinmillError, NotTrusted
from tasks.portage.index import Sums, complete, header, of_set, parse, read, render
from tests.kit.refused import refused

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


def test_index_is_rendered_as_it_was_read(tmp_path: Path) -> None:
    first, stanzas = parse(SAMPLE)
    assert "".join(map(render, (first, *stanzas))) == SAMPLE
    (tmp_path / "Packages").write_text(SAMPLE)
    assert list(read(tmp_path / "Packages")) == [first, *stanzas]


def test_parse_splits_header_and_stanzas() -> None:
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
def test_line_ends_with_a_newline_only(letter: str, tmp_path: Path) -> None:
    """Otherwise a description could add fields and stanzas."""
    sneaky = f"CPV: a/b-1\nDESC: x{letter}PATH: ../../etc/shadow\n"
    wanted = [{"CPV": "a/b-1", "DESC": f"x{letter}PATH: ../../etc/shadow"}]
    assert parse(f"A: 1\n\n{sneaky}")[1] == wanted
    (tmp_path / "Packages").write_bytes(f"A: 1\n\n{sneaky}".encode())
    assert list(read(tmp_path / "Packages"))[1:] == wanted


def test_index_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_bytes(b"A: \xff\n\nCPV: a/b-1\n")
    assert list(read(tmp_path / "Packages")) == [{"A": "\ufffd"}, {"CPV": "a/b-1"}]


def test_rendered_keys_are_sorted_and_empty_ones_left_out() -> None:
    assert render({"X": "1", "EMPTY": "", "B": "2"}) == "B: 2\nX: 1\n\n"


def test_header_has_the_keys_of_the_profile_and_ours() -> None:
    written = {
        **parse(SAMPLE)[0],
        "TTL": "99999999",
        "DOWNLOAD_TIMESTAMP": "99999999999",
        "USE_EXPAND_VALUES_ARCH": "amd64",
        "EVIL": "x",
    }
    revisions = {"ours": "b" * 40, "gentoo": HASH}
    block = header(written, 3, 77, revisions)
    assert json.loads(block.pop("REPO_REVISIONS")) == revisions
    assert block == {
        "ACCEPT_KEYWORDS": "amd64",
        "ARCH": "amd64",
        "PACKAGES": "3",
        "TIMESTAMP": "77",
        "PROFILE": "default/linux/amd64/lab",
        "USE": "amd64",
        "VERSION": "0",
        "USE_EXPAND_VALUES_ARCH": "amd64",
    }
    assert header(written, 3, 77, revisions) == header(
        written, 3, 77, dict(reversed(revisions.items()))
    )
    assert json.loads(header({}, 0, 1, {})["REPO_REVISIONS"]) == {}


def package(build_id: int = 1) -> Package:
    path = f"app-arch/bzip2/bzip2-1.0.8-{build_id}.gpkg.tar"
    return Package("app-arch/bzip2-1.0.8", build_id, "0", "", "gentoo", path, 5, "a" * 128)


def test_stanza_is_completed_with_sums_of_the_signed_file() -> None:
    first = parse(SAMPLE)[1][0]
    sums = Sums(size=6, md5="m" * 32, sha1="s" * 40, sha512="t" * 128, mtime=99)
    assert complete(first, sums) == first | {
        "SIZE": "6",
        "MD5": "m" * 32,
        "SHA1": "s" * 40,
        "SHA512": "t" * 128,
        "MTIME": "99",
    }


def test_stanzas_are_those_of_the_set() -> None:
    stanzas = of_set(parse(SAMPLE)[1], [package(2)])
    assert {path: stanza["BUILD_ID"] for path, stanza in stanzas.items()} == {package(2).path: "2"}
    assert len(of_set(parse(SAMPLE)[1], [package(2), package(1)])) == 2


def test_names_and_fetching_of_the_chroots_index_are_ignored() -> None:
    forged = SAMPLE.replace(
        "CPV: app-arch/bzip2-1.0.8\nD", "CPV: sys-apps/shadow-1\nFETCHCOMMAND: x\nBASE_URI: y\nD"
    )
    (stanza,) = of_set(parse(forged)[1], [package()]).values()
    assert stanza == parse(SAMPLE)[1][0]


def test_package_that_the_index_lacks_is_an_error() -> None:
    with refused(BinmillError, "index-lacks-package", package="app-arch/bzip2-1.0.8"):
        of_set(parse(SAMPLE)[1], [package(3)])
    with refused(BinmillError, "index-lacks-package"):
        of_set([], [package()])


def test_package_that_the_index_has_twice_is_refused() -> None:
    """The access policy might see one stanza, and the other be published."""
    twice = SAMPLE + f"PATH: {package().path}\nLICENSE: GPL-2\n\n"
    with refused(NotTrusted, "index-duplicate", path=package().path):
        of_set(parse(twice)[1], [package()])


@pytest.mark.parametrize(
    "field",
    ["PATH: ../../../etc/shadow", "PATH: /etc/shadow", "PATH: app-arch/../../x-1-1.gpkg.tar"],
)
def test_stanza_with_a_path_outside_is_ignored(field: str) -> None:
    """Paths come from parsed names (portage.gpkg); an index can at most lack one."""
    climbing = SAMPLE + f"CPV: ../../evil-1\nBUILD_ID: ../1\n{field}\n\n"
    assert set(of_set(parse(climbing)[1], [package(), package(2)])) == {
        package().path,
        package(2).path,
    }
    instead = SAMPLE.replace(f"PATH: {package().path}", field)
    with refused(BinmillError, "index-lacks-package"):
        of_set(parse(instead)[1], [package()])


def test_name_and_build_id_of_the_chroots_index_are_ignored() -> None:
    forged = SAMPLE.replace("BUILD_ID: 1\n", "BUILD_ID: ../../1\n").replace(
        "CPV: app-arch/bzip2-1.0.8\nDEFINED", "CPV: ../../evil-1\nDEFINED"
    )
    (stanza,) = of_set(parse(forged)[1], [package()]).values()
    assert (stanza["CPV"], stanza["BUILD_ID"]) == ("app-arch/bzip2-1.0.8", "1")


def test_value_of_the_chroots_index_begins_no_stanza() -> None:
    """Portage reads its copy of an index with universal newlines."""
    other = "\r\rCPV: sys-apps/shadow-1\rPATH: x"
    forged = SAMPLE.replace("\nDEFINED", f"\nNOTE: x{other}\nA{other}: 1\nDEFINED")
    (stanza,) = of_set(parse(forged)[1], [package()]).values()
    assert "\r" not in render(stanza)
    assert stanza["NOTE"] == "x  CPV: sys-apps/shadow-1 PATH: x"
    assert "\r" not in render(header({"USE": f"x{other}"}, 1, 1, {}))
