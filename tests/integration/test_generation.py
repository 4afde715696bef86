"""Publishing on a real file system: clients see the old generation or the new one, complete."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.errors import BinmillError
from tasks.portage.index import parse
from tasks.publish import generation, published
from tasks.publish.generation import Issue, Source
from tasks.system.files import digests
from tests.kit.binhost import (
    EXTRA_FILES,
    METADATA,
    RELEASE,
    SIGNED,
    SIGNER,
    SampleBinhost,
    sign,
)
from tests.kit.files import names
from tests.kit.kills import killed_before
from tests.kit.refused import refused
from tests.kit.set_clock import SetClock


@pytest.fixture
def site(tmp_path: Path) -> SampleBinhost:
    return SampleBinhost(tmp_path)


def test_first_generation_is_current_and_complete(site: SampleBinhost) -> None:
    assert generation.current(site.binhost) is None
    record, folder = site.build_set(("x", 1, b"one"), ("y", 2, b"two"))
    (folder / "stray").write_text("not of the set")
    assert site.publish((record, folder)) == 1
    assert generation.current(site.binhost) == 1
    assert str((site.binhost / "current").readlink()) == "gen/1"
    files = site.client_files()
    packages = {"a-b/x/x-1-1.gpkg.tar", "a-b/y/y-1-2.gpkg.tar"}
    assert set(files) == EXTRA_FILES | packages
    assert gzip.decompress(files["Packages.gz"]) == files["Packages"]
    header, stanzas = parse(files["Packages"].decode())
    assert [s["SIZE"] for s in stanzas] == [str(len(files[s["PATH"]])) for s in stanzas]
    (described,) = generation.load_all(site.binhost)
    assert described.source == Source(set="set1", signer=SIGNER, revisions={"gentoo": "c" * 40})
    assert described.issue.created <= time.time()
    assert described.issue == Issue(
        timestamp=int(header["TIMESTAMP"]),
        created=described.issue.created,
        views={"public": 2},
        packages=2,
    )
    assert (described.names, described.candidate) == (("current",), False)
    top = site.binhost / "current/public"
    for name in ("Packages", "Packages.gz"):
        assert (top / name).stat().st_mtime == described.issue.timestamp
    modes = {p.stat().st_mode & 0o7777 for p in (site.binhost / "gen/1").rglob("*") if p.is_dir()}
    assert modes == {0o755}
    assert names(site.binhost / "gen") == ["1"]


def test_timestamps_grow_even_if_the_clock_goes_back(site: SampleBinhost, clock: SetClock) -> None:
    clock.set(1000.9)
    stamps = []
    for number in range(1, 4):
        site.publish(site.build_set(("x", number, b"%d" % number)))
        stamps.append(generation.load(site.binhost, number).issue.timestamp)
    assert stamps == [1000, 1006, 1012], "Portage treats those within five seconds as equal"
    generation.switch(site.binhost, 1)
    clock.set(5.0)
    site.publish(site.build_set(("x", 9, b"9")))
    assert generation.load(site.binhost, 4).issue.timestamp == 1018


def test_published_path_keeps_its_bytes(site: SampleBinhost) -> None:
    site.publish(site.build_set(("x", 1, b"one"), ("y", 1, b"old")))
    first = site.client_files()
    # signed again, with other bytes: the published file is reused
    assert site.publish(site.build_set(("x", 1, b"one"), ("y", 2, b"new"))) == 2
    second = site.client_files()
    assert second["a-b/x/x-1-1.gpkg.tar"] == first["a-b/x/x-1-1.gpkg.tar"]
    assert b"signed 2" in second["a-b/y/y-1-2.gpkg.tar"]
    _, stanzas = parse(second["Packages"].decode())
    assert [int(s["SIZE"]) for s in stanzas] == [len(second[s["PATH"]]) for s in stanzas]


def test_other_content_at_a_published_path_is_refused(site: SampleBinhost) -> None:
    site.publish(site.build_set(("x", 1, b"one")))
    before = site.client_files()
    with refused(BinmillError, "path-already-published", path="a-b/x/x-1-1.gpkg.tar"):
        site.publish(site.build_set(("x", 1, b"other")))
    assert site.client_files() == before
    site.publish(site.build_set(("x", 2, b"other")))
    site.publish(site.build_set(("x", 3, b"more")))
    assert site.prune(1) == [1]
    with refused(BinmillError, "path-already-published"):  # even after it was pruned
        site.publish(site.build_set(("x", 1, b"other")))


def test_new_key_signs_everything_again(site: SampleBinhost) -> None:
    first, folder = site.build_set(("x", 1, b"one"))
    site.publish((first, folder))
    ((path, package),) = published.reusable(site.binhost, first.packages, SIGNER).items()
    assert path == "a-b/x/x-1-1.gpkg.tar"
    assert package.location == site.binhost / "gen/1/public/a-b/x/x-1-1.gpkg.tar"
    assert published.reusable(site.binhost, first.packages, "B" * 40) == {}
    site.publish(site.build_set(("x", 1, b"one")), signer="B" * 40)
    assert b"signed 2" in site.client_files()["a-b/x/x-1-1.gpkg.tar"]
    assert generation.load(site.binhost, 2).source.signer == "B" * 40


def test_reused_package_is_linked_and_not_read(
    site: SampleBinhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.publish(site.build_set(("x", 1, b"one"), ("y", 1, b"old")))
    new = site.build_set(("x", 1, b"one"), ("z", 1, b"new"))
    read: list[str] = []

    def reading(path: Path, *algorithms: str) -> dict[str, str]:
        read.append(path.name)
        return digests(path, *algorithms)

    monkeypatch.setattr(published, "digests", reading)
    site.publish(new)
    assert read == ["z-1-1.gpkg.tar"]
    inodes = {(site.binhost / f"gen/{n}/public/a-b/x/x-1-1.gpkg.tar").stat().st_ino for n in (1, 2)}
    assert len(inodes) == 1
    for path, stanza in (
        (s["PATH"], s) for s in parse(site.client_files()["Packages"].decode())[1]
    ):
        assert stanza["SHA512"] == hashlib.sha512(site.client_files()[path]).hexdigest()


def test_reused_package_with_another_size_is_refused(site: SampleBinhost) -> None:
    site.publish(site.build_set(("x", 1, b"one")))
    before = site.client_files()
    with (site.binhost / "gen/1/public/a-b/x/x-1-1.gpkg.tar").open("ab") as stream:
        stream.write(b"!")
    with refused(BinmillError, "published-package-modified"):
        site.publish(site.build_set(("x", 1, b"one")))
    assert site.client_files()["Packages"] == before["Packages"]


def test_generation_without_ledger_and_signer_is_not_reused(site: SampleBinhost) -> None:
    record, folder = site.build_set(("x", 1, b"one"))
    site.publish((record, folder))
    (site.binhost / "published.json").unlink()
    facts = site.binhost / "gen/1/generation.json"
    facts.write_text(json.dumps({"set": "x", "timestamp": 5}))
    assert published.reusable(site.binhost, record.packages, SIGNER) == {}
    assert site.publish(site.build_set(("x", 1, b"one"))) == 2


def test_generation_without_views_is_reused(site: SampleBinhost) -> None:
    binpkgs = site.build_set(("x", 1, b"one"))
    site.publish(binpkgs)
    top = site.binhost / "gen/1"
    (top / "ledger.json").unlink()
    (top / "public").rename(site.place / "aside")
    (site.place / "aside/a-b").rename(top / "a-b")
    assert site.publish(site.build_set(("x", 1, b"one"))) == 2
    assert site.client_files()["a-b/x/x-1-1.gpkg.tar"] == b"one signed 1"


VIEWS = {"public": ["x"], "role.java": ["x", "y"], "site.acme": ["x", "z"]}


def test_each_group_has_a_view(site: SampleBinhost) -> None:
    binpkgs = site.build_set(("x", 1, b"one"), ("y", 1, b"two"), ("z", 1, b"three"))
    content = site.content(binpkgs, views=VIEWS)
    site.publish_content(content)
    for view, wanted in VIEWS.items():
        files = site.client_files(view)
        paths = {f"a-b/{name}/{name}-1-1.gpkg.tar" for name in wanted}
        assert set(files) == EXTRA_FILES | paths
        header, stanzas = parse(files["Packages"].decode())
        assert {s["PATH"] for s in stanzas} == paths
        assert header["PACKAGES"] == str(len(wanted))
    assert generation.load(site.binhost, 1).issue.views == {
        "public": 1,
        "role.java": 2,
        "site.acme": 2,
    }
    links = (site.binhost / "current/public/a-b/x/x-1-1.gpkg.tar").stat().st_nlink
    assert links == 4  # one for each view, and the signed file


def test_other_content_in_another_view_is_refused(site: SampleBinhost) -> None:
    one = site.build_set(("x", 1, b"one"), ("y", 1, b"two"))
    site.publish_content(site.content(one, views={"role.java": ["x", "y"]}))
    other = site.build_set(("x", 1, b"one"), ("y", 1, b"other"))
    content = site.content(other, views={"public": ["y"], "role.java": ["x"]})
    with refused(BinmillError, "path-already-published", path="a-b/y/y-1-1.gpkg.tar"):
        site.publish_content(content)
    moved = site.build_set(("x", 1, b"one"), ("y", 1, b"two"))  # to another group: the same bytes
    content = site.content(moved, views={"public": ["y"], "role.java": ["x", "y"]})
    site.publish_content(content)
    assert site.client_files()["a-b/y/y-1-1.gpkg.tar"] == b"two signed 1"


def test_release_manifest_of_each_view(site: SampleBinhost, clock: SetClock) -> None:
    clock.set(1000.5)
    binpkgs = site.build_set(("x", 1, b"one"), ("y", 1, b"two"), ("z", 1, b"three"))
    site.publish_content(site.content(binpkgs, views=VIEWS))
    site.publish_content(site.content(binpkgs, views=VIEWS))
    for view, wanted in VIEWS.items():
        files = site.client_files(view)
        manifest = json.loads(files["release.json"])
        manifest_files = manifest.pop("files")
        assert manifest == {
            "name": "base",
            "set": RELEASE.set,
            "lock": RELEASE.lock.plain(),
            "config": RELEASE.config,
            "format": 2,
            "generation": 2,
            "group": view.replace(".", ":"),
            "packages": len(wanted),
            "timestamp": 1006,
            "created": 1000,
            "valid_until": 1000 + 10 * 86400,
        }
        assert set(manifest_files) == {"Packages", "Packages.gz", *METADATA}
        for name, entry in manifest_files.items():
            assert entry == {
                "size": len(files[name]),
                "sha256": hashlib.sha256(files[name]).hexdigest(),
                "sha512": hashlib.sha512(files[name]).hexdigest(),
            }
        for name in SIGNED:
            assert files[f"{name}.asc"] == b"signed: " + files[name]
        lines = files["release.json"].decode().split("\n")
        assert ' "generation": 2,' in lines  # one key a line, for sed(1)
        assert f' "valid_until": {1000 + 10 * 86400}' in lines


def test_content_that_cannot_be_signed_is_not_published(site: SampleBinhost) -> None:
    site.publish(site.build_set(("x", 1, b"one")))
    before = site.client_files()
    content = site.content(site.build_set(("x", 1, b"one"), ("y", 1, b"two")))

    def fails(_: Sequence[Path]) -> None:
        raise BinmillError("signing-failed", cause="no key", log="")

    def half(files: Sequence[Path]) -> None:
        sign(files[:-1])

    for signing, code in ((fails, "signing-failed"), (half, "signature-missing")):
        with refused(BinmillError, code):
            site.publish_content(content, signing)
        assert site.client_files() == before
        assert generation.current(site.binhost) == 1
        assert names(site.binhost / "gen") == ["1"]
        assert "a-b/y/y-1-1.gpkg.tar" not in published.read_paths(site.binhost)
    assert site.publish_content(content) == 2


def test_kill_at_any_moment_leaves_the_old_generation_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two groups switch at once; after any kill, the next run ends like an undisturbed one."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a SIGKILL loses nothing that was written
    before = SampleBinhost(tmp_path / "before")
    both = {"public": ["x"], "role.java": ["x", "y"]}
    first = before.build_set(("x", 1, b"one"))
    before.publish_content(before.content(first, views={"public": ["x"], "role.java": ["x"]}))
    new, folder = before.build_set(("x", 1, b"one"), ("y", 1, b"two"))
    outcomes = {"old": 0, "new": 0}
    for moment in range(1, 1000):
        site = SampleBinhost(tmp_path / str(moment))
        shutil.copytree(before.place, site.place, symlinks=True)
        content = site.content((new, site.place / folder.name), views=both)
        died = killed_before(moment, lambda s=site, c=content: s.publish_content(c))  # type: ignore[misc]
        outcomes[as_a_client_sees(site)] += 1
        last = site.publish_content(site.content((new, site.place / folder.name), views=both))
        assert as_a_client_sees(site) == "new"
        assert site.client_files("role.java")["a-b/x/x-1-1.gpkg.tar"] == b"one signed 1"
        assert generation.current(site.binhost) == last
        assert not [name for name in names(site.binhost / "gen") if name.startswith(".")]
        assert names(site.binhost / "candidate") == []
        assert not site.trash.exists() or names(site.trash) == []
        shutil.rmtree(site.place)
        if not died:
            break
    assert outcomes["old"] > 40
    assert outcomes["new"] == 1  # the switch is the last of them


def as_a_client_sees(site: SampleBinhost) -> str:
    """The generation that both groups see: "old" or "new", complete."""
    numbers = set()
    for view in ("public", "role.java"):
        files = site.client_files(view)
        assert gzip.decompress(files["Packages.gz"]) == files["Packages"]
        for name in SIGNED:
            assert files[f"{name}.asc"] == b"signed: " + files[name]
        for stanza in parse(files["Packages"].decode())[1]:
            assert hashlib.sha512(files[stanza["PATH"]]).hexdigest() == stanza["SHA512"]
        numbers.add(json.loads(files["release.json"])["generation"])
    (number,) = numbers
    listed = parse(site.client_files("role.java")["Packages"].decode())[1]
    assert len(listed) == (1 if number == 1 else 2)
    return "old" if number == 1 else "new"


def test_prune_keeps_the_newest_and_the_named_ones(site: SampleBinhost) -> None:
    for number in range(1, 6):
        site.publish(site.build_set(("x", number, b"%d" % number)))
    generation.switch(site.binhost, 2)
    assert site.prune(2) == [1, 3]
    assert names(site.binhost / "gen") == ["2", "4", "5"]
    assert site.client_files()
    assert site.prune(2) == []
    assert site.publish(site.build_set(("x", 6, b"6"))) == 6
    assert site.prune(1, 4) == [5]  # 2 was current before 6
    assert site.prune(1) == [4]
    assert not site.trash.exists() or names(site.trash) == []


def test_open_file_outlives_its_generation(site: SampleBinhost) -> None:
    site.publish(site.build_set(("x", 1, b"one")))
    with (site.binhost / "current/public/a-b/x/x-1-1.gpkg.tar").open("rb") as stream:
        site.publish(site.build_set(("x", 2, b"two")))
        assert site.prune(1) == []
        site.publish(site.build_set(("x", 3, b"three")))
        assert site.prune(1, keep_days=1) == []
        assert site.prune(1) == [1]
        assert stream.read() == b"one signed 1"


def test_switch_points_current_at_a_generation(site: SampleBinhost) -> None:
    site.publish(site.build_set(("x", 1, b"one")))
    first = site.client_files()
    site.publish(site.build_set(("x", 2, b"two")))
    generation.switch(site.binhost, 1)
    assert site.client_files() == first
    with refused(BinmillError, "generation-missing", number=3):
        generation.switch(site.binhost, 3)
    assert generation.current(site.binhost) == 1
    (site.binhost / ".current.tmp").symlink_to("gen/9")  # left by a killed run
    generation.switch(site.binhost, 2)
    assert names(site.binhost) == ["candidate", "current", "gen", "previous", "published.json"]


def test_deleted_current_generation_is_published_again(site: SampleBinhost) -> None:
    site.publish(site.build_set(("x", 1, b"one")))
    (site.binhost / "gen/1").rename(site.place / "gone")
    assert generation.current(site.binhost) is None
    assert site.publish(site.build_set(("x", 1, b"one"))) == 1
    assert generation.current(site.binhost) == 1
