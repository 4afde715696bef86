"""lock, tree and overlay: what they pin, and what they do with what the world has by then."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tasks import lock as locks
from tasks import records
from tasks.errors import BinmillError, DownloadFailed, Stale
from tasks.flow import trees
from tasks.lock import SeedPin
from tasks.seed import download as seeds
from tasks.site import Site
from tests.kit.fake_upstream import NEXT, PASSWORD, FakeUpstream
from tests.kit.files import names
from tests.kit.overlays import commit, git, rewrite_branch
from tests.kit.refused import refused
from tests.kit.snapshots import DAY

SEEDS = {"openrc": {"flavour": "openrc", "key": "stages"}}


def resolved_to(monkeypatch: pytest.MonkeyPatch, path: str) -> list[str]:
    """Let every seed be found at a path; returns the flavours that are asked for."""
    asked: list[str] = []

    def resolve(entry: Any, *_: Any) -> SeedPin:
        asked.append(entry.flavour)
        digest = f"{len(path):0128x}"
        return SeedPin(arch=entry.arch, flavour=entry.flavour, path=path, size=7, sha512=digest)

    monkeypatch.setattr(seeds, "resolve", resolve)
    return asked


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return resolved_to(monkeypatch, "1/stage3.tar.xz")


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """An overlay's own repository."""
    made = tmp_path / "upstream"
    subprocess.run(["git", "init", "-q", "-b", "main", made], check=True)
    commit(made, {"profiles/repo_name": "java\n"})
    return made


def with_overlay(fake_upstream: FakeUpstream, upstream: Path, **more: Any) -> Site:
    """A site that has the overlay `java`, at a URL with a password."""
    url = f"file://me:{PASSWORD}@localhost{upstream}"
    return fake_upstream.site(more={"overlays": {"java": {"url": url}}}, **more)


def freeze(fake_upstream: FakeUpstream, site: Site, day: date = NEXT) -> Any:
    fake_upstream.publish("one", fake_upstream.signed(day), day)
    return fake_upstream.snapshot(site)[0]


def test_lock_before_there_is_anything(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    for named in ("", "20260115"):
        with pytest.raises(Stale, match="nothing is frozen yet") as stale:
            trees.lock(site, asked=True, tree=named)
        assert stale.value.hint == "run `doit snapshot lock`"
        assert not site.layout.lock.exists()


def test_lock_follows_only_when_it_is_asked(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    record = trees.lock(site, asked=False)
    assert record["tree"]["tag"] == "20260115"
    assert frozen_upstream.output() == (
        f"  wrote {site.layout.lock}: tree 20260115 at {record['tree']['commit'][:12]}\n"
    )
    text = site.layout.lock.read_bytes()
    freeze(frozen_upstream, site)
    assert trees.lock(site, asked=False) == record
    assert site.layout.lock.read_bytes() == text
    assert frozen_upstream.output() == "  config.lock is unchanged (tree 20260115)\n"
    assert trees.lock(site, asked=True)["tree"]["tag"] == "20260116"
    assert names(site.layout.work) == []


def test_lock_fills_only_the_gaps(frozen_upstream: FakeUpstream, seed: list[str]) -> None:
    trees.lock(frozen_upstream.site(), asked=False)
    assert seed == ["openrc"]
    more = frozen_upstream.site(
        more={"seeds": {**SEEDS, "other": {"flavour": "musl", "key": "stages"}}}
    )
    freeze(frozen_upstream, more)
    made = trees.lock(more, asked=False)
    assert seed == ["openrc", "musl"]
    assert made["tree"]["tag"] == "20260115"
    less = frozen_upstream.site()  # what is not wanted any more is not pinned any more
    assert set(trees.lock(less, asked=False)["seeds"]) == {"openrc"}


def test_lock_says_what_moved(
    frozen_upstream: FakeUpstream, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    trees.lock(site, asked=True)
    frozen_upstream.output()
    old = git(upstream, "rev-parse", "HEAD")
    new = commit(upstream, {"x": "y"})
    resolved_to(monkeypatch, "20/stage3.tar.xz")
    frozen = freeze(frozen_upstream, site)
    made = trees.lock(site, asked=True)
    assert made["overlays"]["java"]["commit"] == new
    assert frozen_upstream.output().splitlines() == [
        f"  wrote {site.layout.lock}: tree 20260116 at {frozen['commit'][:12]}",
        f"  overlay java: {old[:7]} -> {new[:7]} (main)",
        "  seed openrc: 1/stage3.tar.xz -> 20/stage3.tar.xz",
    ]
    trees.lock(site, asked=True)
    assert frozen_upstream.output() == "  config.lock is unchanged (tree 20260116)\n"


def test_lock_one_tag_and_leave_the_rest(
    frozen_upstream: FakeUpstream, upstream: Path, monkeypatch: pytest.MonkeyPatch, seed: list[str]
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    freeze(frozen_upstream, site)
    held = trees.lock(site, asked=True)
    assert held["tree"]["tag"] == "20260116"
    frozen_upstream.output()
    commit(upstream, {"x": "y"})
    seed.clear()
    monkeypatch.setattr(seeds, "resolve", lambda *_: pytest.fail("a seed was looked for"))
    made = trees.lock(site, asked=True, tree="20260115")
    assert made == {**held, "tree": made["tree"]}
    assert made["tree"]["tag"] == "20260115"
    assert made == locks.read(site.layout).model_dump()
    assert frozen_upstream.output() == (
        f"  wrote {site.layout.lock}: tree 20260115 at {made['tree']['commit'][:12]}\n"
    )
    assert trees.tree(site)["tag"] == "20260115"
    assert trees.lock(site, asked=True, tree="20260115") == made
    assert frozen_upstream.output().endswith("  config.lock is unchanged (tree 20260115)\n")


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ("20260151", "day-misspelt"),
        ("2026-01-15", "day-misspelt"),
        ("main", "day-not-frozen"),
        ("refs/tags/20260115/../x", "day-not-frozen"),
        ("--help", "day-not-frozen"),
    ],
)
def test_lock_an_unknown_tag(frozen_upstream: FakeUpstream, named: str, code: str) -> None:
    site = frozen_upstream.site()
    trees.lock(site, asked=True)
    text = site.layout.lock.read_bytes()
    with refused(BinmillError, code, day=named, newest=["20260115"]):
        trees.lock(site, asked=True, tree=named)
    assert site.layout.lock.read_bytes() == text


def test_a_tree_as_files(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    frozen = freeze(frozen_upstream, site)
    trees.lock(site, asked=False)
    record = trees.tree(site)
    assert record == {key: frozen[key] for key in ("tag", "commit", "timestamp")}
    ebuild = site.layout.export(frozen["commit"]) / "app-misc/one/one-1.ebuild"
    assert ebuild.read_text() == f"EAPI=8\n# {NEXT}\n"


@pytest.mark.parametrize("has", ["remote", "mirror", "mirror, remote empty", "mirror, no remote"])
def test_a_lock_from_another_machine(
    frozen_upstream: FakeUpstream, tmp_path: Path, has: str
) -> None:
    """The same commit, from the remote or frozen again; an old lock needs no older mirror."""
    here = frozen_upstream.site()
    trees.lock(here, asked=False)
    tree: dict[str, Any] = {}
    if has != "remote":
        frozen_upstream.publish("one", frozen_upstream.signed(DAY), DAY)
        tree = {"remote": str(tmp_path / "gone.git")}
    if has == "mirror, no remote":
        tree = {"remote": None}
    if has == "mirror, remote empty":
        subprocess.run(["git", "init", "-q", "--bare", tmp_path / "gone.git"], check=True)
    other = frozen_upstream.site(name="other", **tree)
    locks.write(other.layout, locks.read(here.layout))
    frozen_upstream.output()
    assert trees.tree(other) == trees.tree(here)
    assert (other.layout.export(trees.tree(here)["commit"]) / "profiles/repo_name").exists()
    assert ("could not read " in frozen_upstream.output()) == (has == "mirror")
    frozen_upstream.assert_nothing_left(other)


def test_a_lock_that_nobody_can_satisfy(frozen_upstream: FakeUpstream) -> None:
    here = frozen_upstream.site()
    trees.lock(here, asked=False)
    held = locks.read(here.layout)
    other = frozen_upstream.site(name="other", remote=None)
    locks.write(other.layout, held)
    with pytest.raises(DownloadFailed, match=r"no mirror gave gentoo-20260115\.tar\.xz"):
        trees.tree(other)
    frozen_upstream.assert_nothing_left(other)
    frozen_upstream.publish("one", frozen_upstream.signed(DAY), DAY)
    wrong = held.tree.model_copy(update={"commit": "d" * 40})
    locks.write(other.layout, held.model_copy(update={"tree": wrong}))
    with pytest.raises(BinmillError, match="is not the locked commit dddddddddddd"):
        trees.tree(other)
    wrong = held.tree.model_copy(update={"tag": "20200101"})
    locks.write(here.layout, held.model_copy(update={"tree": wrong}))
    with pytest.raises(BinmillError, match="edited by hand"):
        trees.tree(here)


@pytest.mark.parametrize("named", ["newest", "2026115", "20260230"])
def test_a_lock_that_names_no_day(frozen_upstream: FakeUpstream, named: str) -> None:
    site = frozen_upstream.site(remote=None)
    trees.lock(site, asked=False)
    held = locks.read(site.layout)
    wrong = held.tree.model_copy(update={"tag": named, "commit": "d" * 40})
    locks.write(site.layout, held.model_copy(update={"tree": wrong}))
    with pytest.raises(BinmillError) as failed:
        trees.tree(site)
    assert failed.value.message == f"config.lock: {named!r} is not a day"


def test_an_overlay_stays_where_it_is_pinned(frozen_upstream: FakeUpstream, upstream: Path) -> None:
    site = with_overlay(frozen_upstream, upstream)
    old = trees.lock(site, asked=True)["overlays"]["java"]["commit"]
    frozen_upstream.output()
    assert trees.overlay(site, "java") == {"commit": old}
    assert frozen_upstream.output() == ""
    new = commit(upstream, {"x": "y"})
    assert trees.overlay(site, "java") == {"commit": old}
    assert frozen_upstream.output() == (
        f"  java: main has moved on to {new[:7]} (pinned: {old[:7]}); `doit lock` follows\n"
    )
    assert names(site.layout.export(old)) == ["profiles"]
    assert not site.layout.export(new).exists()
    newest = rewrite_branch(upstream, {"z": "z"})
    assert trees.overlay(site, "java") == {"commit": old}
    assert frozen_upstream.output().startswith(
        f"  java: main was rewritten: {newest[:7]} does not go back "
    )
    assert trees.lock(site, asked=True)["overlays"]["java"]["commit"] == newest
    assert trees.overlay(site, "java") == {"commit": newest}


def test_an_overlay_that_cannot_be_reached(
    frozen_upstream: FakeUpstream, upstream: Path, tmp_path: Path
) -> None:
    """It is said, and no more, when the pinned commit is here."""
    site = with_overlay(frozen_upstream, upstream)
    old = trees.lock(site, asked=True)["overlays"]["java"]["commit"]
    away = upstream.rename(tmp_path / "away")
    frozen_upstream.output()
    with refused(BinmillError, "overlay-not-fetched") as error:
        trees.overlay(site, "java")
    assert PASSWORD not in str(error.value)
    assert not site.layout.export(old).exists()
    away.rename(upstream)
    trees.overlay(site, "java")
    upstream.rename(away)
    frozen_upstream.output()
    assert trees.overlay(site, "java") == {"commit": old}
    (said,) = frozen_upstream.output().splitlines()
    assert said.startswith(f"  could not read file://localhost{upstream}: ")


def test_a_snapshot_asks_for_news(frozen_upstream: FakeUpstream, upstream: Path) -> None:
    """`doit snapshot` is what asks upstream each day: of pinned overlays, too."""
    site = with_overlay(frozen_upstream, upstream)
    old = trees.lock(site, asked=True)["overlays"]["java"]["commit"]
    trees.overlay(site, "java")
    new = commit(upstream, {"x": "y"})
    frozen_upstream.output()
    _, said = frozen_upstream.snapshot(site)
    news = f"java: main has moved on to {new[:7]} (pinned: {old[:7]})"
    assert f"  {news}; `doit lock` follows\n" in said
    assert records.news(site.layout, "overlay:java", old) == news
    assert locks.read(site.layout).overlays["java"].commit == old
    elsewhere = site.config.overlays["java"].model_copy(update={"branch": "other"})
    moved = site.config.model_copy(update={"overlays": {"java": elsewhere}})
    assert (
        "java" not in frozen_upstream.snapshot(Site(site.layout, moved))[1]
    )  # it is not what is pinned
    (site.layout.overlay("java") / "HEAD").unlink()  # what is wrong there is no snapshot's matter
    _, said = frozen_upstream.snapshot(site)
    assert "java.git is damaged: it has no HEAD\n" in said


def test_an_overlay_that_the_lock_does_not_pin(
    frozen_upstream: FakeUpstream, upstream: Path
) -> None:
    trees.lock(frozen_upstream.site(), asked=True)
    with pytest.raises(Stale, match="does not pin the overlay java") as stale:
        trees.overlay(with_overlay(frozen_upstream, upstream), "java")
    assert "doit lock" in stale.value.hint
