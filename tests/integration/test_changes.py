"""Two frozen days, compared by the real git."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tasks.errors import BinmillError, Stale
from tasks.snapshot.changes import KINDS, Changes, choose_days, compare
from tasks.snapshot.changes_report import as_text
from tasks.snapshot.frozen_days import tags
from tasks.system.git import bare
from tests.kit.refused import refused

BEFORE = {
    "app-misc/one/one-1.ebuild": b"EAPI=8\n",
    "app-misc/one/Manifest": b"DIST 1\n",
    "dev-lang/two/two-1.9.ebuild": b"EAPI=8\n",
    "dev-lang/two/two-1.10.ebuild": b"EAPI=8\n",
    "dev-libs/gone/gone-3.ebuild": b"EAPI=7\n",
    "dev-libs/same/same-1.ebuild": b"EAPI=8\n",
    "eclass/cmake.eclass": b"1\n",
    "metadata/md5-cache/dev-lang/two-1.9": b"x\n",
    "metadata/timestamp.x": b"1768524300\n",
    "profiles/package.mask": b"\n",
    "profiles/repo_name": b"gentoo\n",
    "run.sh": b"#!/bin/sh\n",
}
AFTER = {
    **{
        path: data
        for path, data in BEFORE.items()
        if not path.startswith(("dev-libs/gone/", "metadata/md5-cache/", "dev-lang/two/two-1.9."))
    },
    "app-misc/one/one-1.ebuild": b"EAPI=8\nKEYWORDS=amd64\n",
    "app-misc/one/Manifest": b"DIST 1\nDIST 2\n",
    "dev-lang/two/two-1.11.ebuild": b"EAPI=8\n",
    "dev-util/gone/gone-3.ebuild": b"EAPI=7\n",  # the same file: renames are not detected
    "eclass/cmake.eclass": b"2\n",
    "licenses/MIT": b"\n",
    "metadata/md5-cache/dev-lang/two-1.11": b"x\n",
    "metadata/timestamp.x": b"1768610700\n",
    "profiles/package.mask": b"dev-libs/same\n",
}


def put(repository: Path, day: str, files: Mapping[str, bytes], *scripts: str) -> str:
    """A parentless commit of these files under an annotated tag, as freezing leaves it."""
    bare(repository)
    who = b" x <x@test.example> 0 +0000\n"
    stream = [b"commit refs/incoming/%s\ncommitter%sdata 0\n" % (day.encode(), who)]
    for path, data in files.items():
        quoted = "".join(f"\\{byte:03o}" for byte in path.encode(errors="surrogateescape"))
        mode = 755 if path in scripts else 644
        stream.append(f'M 100{mode} inline "{quoted}"\ndata {len(data)}\n'.encode() + data + b"\n")
    tag = b"tag %s\nfrom refs/incoming/%s\ntagger%sdata 0\n" % (day.encode(), day.encode(), who)
    git(repository, "fast-import", "--quiet", stdin=b"".join(stream) + tag)
    return git(repository, "rev-parse", f"{day}^{{commit}}")


def git(repository: Path, *words: str, stdin: bytes = b"") -> str:
    result = subprocess.run(
        ["git", "--git-dir", repository, *words], input=stdin, check=True, capture_output=True
    )
    return result.stdout.decode().strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "tree.git"


@pytest.fixture
def two_days(repository: Path) -> Path:
    """A repository with two days in it."""
    put(repository, "20260115", BEFORE)
    head = put(repository, "20260116", AFTER, "run.sh")
    git(repository, "update-ref", "refs/heads/main", head)
    return repository


def names(changes: Changes) -> list[list[str]]:
    return [[package.name for package in changes.of_kind(kind)] for kind in KINDS]


def test_changes_of_a_day(two_days: Path) -> None:
    changes = compare(two_days, "20260115", "20260116")
    assert names(changes) == [
        ["dev-util/gone"],
        ["dev-libs/gone"],
        ["dev-lang/two"],
        [],
        ["app-misc/one"],
        [],
    ]
    assert changes.of_kind("bumped")[0].before == ("1.9", "1.10")
    assert changes.of_kind("bumped")[0].after == ("1.10", "1.11")
    assert changes.of_kind("changed")[0].changed == ("1",)
    assert changes.others["eclasses"] == {"cmake": "changed"}
    assert changes.others["profiles"] == {"package.mask": "changed"}
    assert changes.others["licenses"] == {"MIT": "new"}
    assert changes.others["other"] == {"run.sh": "changed"}  # its mode alone
    assert changes.derived == 3  # two md5-cache entries and the snapshot's time
    assert changes.files == 13
    assert "\nbumped (1)\n  dev-lang/two 1.10 -> 1.11 -1.9\n" in as_text(changes)


def test_changes_backwards_and_of_one_day(two_days: Path) -> None:
    changes = compare(two_days, "20260116", "20260115")
    assert names(changes) == [
        ["dev-libs/gone"],
        ["dev-util/gone"],
        ["dev-lang/two"],
        [],
        ["app-misc/one"],
        [],
    ]
    assert changes.of_kind("bumped")[0].added == ["1.9"]
    assert changes.others["licenses"] == {"MIT": "gone"}
    same = compare(two_days, "20260115", "20260115")
    assert (same.files, names(same)) == (0, [[]] * 6)


def test_tags_are_the_frozen_days_alone(two_days: Path) -> None:
    assert tags(two_days) == ["20260115", "20260116"]
    git(two_days, "tag", "release-1", "main")
    git(two_days, "tag", "202601150", "main")
    git(two_days, "pack-refs", "--all")
    put(two_days, "20260214", BEFORE)
    assert tags(two_days) == ["20260115", "20260116", "20260214"]
    assert choose_days(tags(two_days), []) == ("20260116", "20260214")


def test_changes_of_commits(two_days: Path) -> None:
    commits = [git(two_days, "rev-parse", f"{day}^{{commit}}") for day in tags(two_days)]
    assert compare(two_days, *commits).files == 13


def test_branch_named_like_a_day_is_ignored(two_days: Path) -> None:
    git(two_days, "branch", "20260115", "20260116")
    assert compare(two_days, "20260115", "20260116").files == 13


def test_changes_without_a_repository(repository: Path) -> None:
    with refused(Stale, "nothing-frozen"):
        compare(repository, "20260115", "20260116")
    assert tags(repository) == []
    assert not repository.exists()
    bare(repository)
    assert tags(repository) == []


@pytest.mark.parametrize("name", ["0" * 40, "d" * 64])
def test_changes_of_a_missing_commit(two_days: Path, name: str) -> None:
    for pair in ((name, "20260115"), ("20260115", name)):
        with refused(BinmillError, "days-unreadable", path=two_days) as error:
            compare(two_days, *pair)
        assert str(error.value.fields["cause"]).startswith("fatal: ")


@pytest.mark.parametrize(
    "name", ["20260117", "--output=x", "main", "", "HEAD~1", "20260115\n", "2026011", "release-1"]
)
def test_only_days_and_commits_reach_git(two_days: Path, name: str, tmp_path: Path) -> None:
    git(two_days, "tag", "release-1", "main")
    for pair in ((name, "20260115"), ("20260115", name)):
        with refused(BinmillError, "day-not-frozen", day=name):
            compare(two_days, *pair)
    assert not (tmp_path / "x").exists()


def test_changes_of_a_tag_of_a_file(two_days: Path) -> None:
    git(two_days, "tag", "20260117", "20260115:run.sh")
    with refused(BinmillError, "days-unreadable", days=("20260117",)):
        compare(two_days, "20260117", "20260115")


def test_changes_in_a_damaged_repository(two_days: Path) -> None:
    for pack in (two_days / "objects").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            pack.write_bytes(pack.read_bytes()[:40])
    with refused(BinmillError, "days-unreadable", path=two_days) as error:
        compare(two_days, "20260115", "20260116")
    assert f"git -C {two_days} fsck" in error.value.hint


def test_odd_names_are_escaped(two_days: Path) -> None:
    """Freezing refuses such names, but a fetched tag may have them: no UTF-8, control codes."""
    odd = [
        "a/b/b-1\udcff.ebuild",
        "eclass/\x1b[2J.eclass",
        "licenses/a\nb",
        "x\u202e",
        "profiles/ ",
        "\udcffa/b/b-1.ebuild",
        "metadata/md5-cache/\n",
        "ü/b/b-1.ebuild",
    ]
    put(two_days, "20260117", dict.fromkeys(odd, b"x"))
    changes = compare(two_days, "20260116", "20260117")
    assert changes.others["eclasses"] == {"cmake": "gone", r"'\x1b[2J'": "new"}
    assert changes.others["licenses"] == {"MIT": "gone", r"'a\nb'": "new"}
    assert changes.others["profiles"].keys() == {" ", "package.mask", "repo_name"}
    assert changes.others["other"] == {
        "run.sh": "gone",
        r"'x\u202e'": "new",
        r"'\udcffa/b/b-1.ebuild'": "new",
        r"'\xfc/b/b-1.ebuild'": "new",
    }
    assert [package.name for package in changes.of_kind("touched")] == ["a/b"]
    assert as_text(changes).isascii()
    assert all(line.isprintable() for line in as_text(changes, rows=None).splitlines())
    back = compare(two_days, "20260117", "20260116")  # the listing has odd names, too
    assert back.files == changes.files
    assert names(back)[:2] == names(changes)[1::-1]
