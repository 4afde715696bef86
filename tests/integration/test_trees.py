"""lock, tree and overlay: pins, exports of pinned commits, notes about newer ones."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tasks import lock as locks
from tasks import updates
from tasks.errors import BinmillError, DownloadFailed, Stale
from tasks.flow import trees
from tasks.lock import Lock, SeedPin
from tasks.records import Inputs, OverlayRecord, Request, SnapshotRecord, TreeRecord
from tasks.seed import download as seeds
from tasks.site import Site
from tasks.system.notes import Note
from tests.kit.fake_upstream import NEXT, PASSWORD, FakeUpstream
from tests.kit.files import names
from tests.kit.overlays import commit, git, rewrite_branch
from tests.kit.refused import refused
from tests.kit.snapshots import DAY

SEEDS = {"openrc": {"flavour": "openrc", "key": "stages"}}


def resolve_seeds_to(monkeypatch: pytest.MonkeyPatch, path: str) -> list[str]:
    """Resolve every seed to a path; returns the flavours that are looked up."""
    flavours: list[str] = []

    def resolve(entry: Any, *_: Any) -> SeedPin:
        flavours.append(entry.flavour)
        digest = f"{len(path):0128x}"
        return SeedPin(arch=entry.arch, flavour=entry.flavour, path=path, size=7, sha512=digest)

    monkeypatch.setattr(seeds, "resolve", resolve)
    return flavours


@pytest.fixture(autouse=True)
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return resolve_seeds_to(monkeypatch, "1/stage3.tar.xz")


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


def freeze(fake_upstream: FakeUpstream, site: Site, day: date = NEXT) -> SnapshotRecord:
    fake_upstream.publish("one", fake_upstream.signed(day), day)
    return fake_upstream.snapshot(site)[0]


def inputs(site: Site, *, named: bool = False, **options: str) -> Inputs:
    """The inputs of a task that reads config.lock."""
    return Inputs(site.layout, frozenset(), frozenset({site.layout.lock}), Request(named, options))


def resolve(site: Site, *, named: bool = True, tree: str = "") -> Lock:
    """Run `doit lock [--tree DAY]`, or the task as another one needs it; returns the lock."""
    trees.resolve(site, inputs(site, named=named, tree=tree))
    return locks.read(site.layout)


def export_tree(site: Site) -> TreeRecord:
    return trees.export_tree(site, inputs(site))


def export_overlay(site: Site, name: str) -> OverlayRecord:
    return trees.export_overlay(site, name, inputs(site))


def test_lock_without_a_frozen_day_is_refused(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    for named in ("", "20260115"):
        with refused(Stale, "nothing-frozen"):
            resolve(site, tree=named)
        assert not site.layout.lock.exists()


def test_lock_follows_only_when_it_is_asked(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    lock = resolve(site, named=False)
    assert lock.tree.tag == "20260115"
    assert frozen_upstream.output() == (
        f"  wrote {site.layout.lock}: tree 20260115 at {lock.tree.commit[:12]}\n"
    )
    text = site.layout.lock.read_bytes()
    freeze(frozen_upstream, site)
    assert resolve(site, named=False) == lock
    assert site.layout.lock.read_bytes() == text
    assert frozen_upstream.output() == "  config.lock is unchanged (tree 20260115)\n"
    assert resolve(site).tree.tag == "20260116"
    assert names(site.layout.work) == []


def test_lock_fills_only_the_gaps(frozen_upstream: FakeUpstream, looked_up: list[str]) -> None:
    resolve(frozen_upstream.site(), named=False)
    assert looked_up == ["openrc"]
    more = frozen_upstream.site(
        more={"seeds": {**SEEDS, "other": {"flavour": "musl", "key": "stages"}}}
    )
    freeze(frozen_upstream, more)
    lock = resolve(more, named=False)
    assert looked_up == ["openrc", "musl"]
    assert lock.tree.tag == "20260115"
    less = frozen_upstream.site()  # what is not wanted any more is not pinned any more
    assert set(resolve(less, named=False).seeds) == {"openrc"}


def test_lock_says_what_moved(
    frozen_upstream: FakeUpstream, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    resolve(site)
    frozen_upstream.output()
    old = git(upstream, "rev-parse", "HEAD")
    new = commit(upstream, {"x": "y"})
    resolve_seeds_to(monkeypatch, "20/stage3.tar.xz")
    frozen = freeze(frozen_upstream, site)
    lock = resolve(site)
    assert lock.overlays["java"].commit == new
    assert frozen_upstream.output().splitlines() == [
        f"  wrote {site.layout.lock}: tree 20260116 at {frozen.commit[:12]}",
        f"  overlay java: {old[:7]} -> {new[:7]} (main)",
        "  seed openrc: 1/stage3.tar.xz -> 20/stage3.tar.xz",
    ]
    resolve(site)
    assert frozen_upstream.output() == "  config.lock is unchanged (tree 20260116)\n"


def test_lock_one_tag_and_leave_the_rest(
    frozen_upstream: FakeUpstream,
    upstream: Path,
    monkeypatch: pytest.MonkeyPatch,
    looked_up: list[str],
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    freeze(frozen_upstream, site)
    before = resolve(site)
    assert before.tree.tag == "20260116"
    frozen_upstream.output()
    commit(upstream, {"x": "y"})
    looked_up.clear()
    monkeypatch.setattr(seeds, "resolve", lambda *_: pytest.fail("a seed was looked for"))
    lock = resolve(site, tree="20260115")
    assert lock == before.model_copy(update={"tree": lock.tree})
    assert lock.tree.tag == "20260115"
    assert frozen_upstream.output() == (
        f"  wrote {site.layout.lock}: tree 20260115 at {lock.tree.commit[:12]}\n"
    )
    assert export_tree(site).tag == "20260115"
    assert resolve(site, tree="20260115") == lock
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
    resolve(site)
    text = site.layout.lock.read_bytes()
    with refused(BinmillError, code, day=named, newest=["20260115"]):
        resolve(site, tree=named)
    assert site.layout.lock.read_bytes() == text


def test_a_tree_as_files(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    frozen = freeze(frozen_upstream, site)
    resolve(site, named=False)
    record = export_tree(site)
    assert record == TreeRecord(frozen.tag, frozen.commit, frozen.timestamp)
    ebuild = site.layout.export(frozen.commit) / "app-misc/one/one-1.ebuild"
    assert ebuild.read_text() == f"EAPI=8\n# {NEXT}\n"


@pytest.mark.parametrize("has", ["remote", "mirror", "mirror, remote empty", "mirror, no remote"])
def test_a_lock_from_another_machine(
    frozen_upstream: FakeUpstream, tmp_path: Path, has: str
) -> None:
    """The same commit, from the remote or frozen again; an old lock needs no older mirror."""
    here = frozen_upstream.site()
    resolve(here, named=False)
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
    assert export_tree(other) == export_tree(here)
    assert (other.layout.export(export_tree(here).commit) / "profiles/repo_name").exists()
    assert ("could not read " in frozen_upstream.output()) == (has == "mirror")
    frozen_upstream.assert_nothing_left(other)


def test_a_lock_that_nobody_can_satisfy(frozen_upstream: FakeUpstream) -> None:
    here = frozen_upstream.site()
    resolve(here, named=False)
    held = locks.read(here.layout)
    other = frozen_upstream.site(name="other", remote=None)
    locks.write(other.layout, held)
    with pytest.raises(DownloadFailed, match=r"no mirror has gentoo-20260115\.tar\.xz"):
        export_tree(other)
    frozen_upstream.assert_nothing_left(other)
    frozen_upstream.publish("one", frozen_upstream.signed(DAY), DAY)
    wrong = held.tree.model_copy(update={"commit": "d" * 40})
    locks.write(other.layout, held.model_copy(update={"tree": wrong}))
    with pytest.raises(BinmillError, match="is not the locked commit dddddddddddd"):
        export_tree(other)
    wrong = held.tree.model_copy(update={"tag": "20200101"})
    locks.write(here.layout, held.model_copy(update={"tree": wrong}))
    with pytest.raises(BinmillError, match="edited by hand"):
        export_tree(here)


@pytest.mark.parametrize("named", ["newest", "2026115", "20260230"])
def test_a_lock_that_names_no_day(frozen_upstream: FakeUpstream, named: str) -> None:
    site = frozen_upstream.site(remote=None)
    resolve(site, named=False)
    held = locks.read(site.layout)
    wrong = held.tree.model_copy(update={"tag": named, "commit": "d" * 40})
    locks.write(site.layout, held.model_copy(update={"tree": wrong}))
    with pytest.raises(BinmillError) as failed:
        export_tree(site)
    assert failed.value.message == f"config.lock: {named!r} is not a day"


def test_an_overlay_stays_where_it_is_pinned(frozen_upstream: FakeUpstream, upstream: Path) -> None:
    site = with_overlay(frozen_upstream, upstream)
    old = resolve(site).overlays["java"].commit
    frozen_upstream.output()
    assert export_overlay(site, "java") == OverlayRecord(old)
    assert frozen_upstream.output() == ""
    new = commit(upstream, {"x": "y"})
    assert export_overlay(site, "java") == OverlayRecord(old)
    assert frozen_upstream.output() == (
        f"  java: main has moved on to {new[:7]} (pinned: {old[:7]}); `doit lock` follows\n"
    )
    assert names(site.layout.export(old)) == ["profiles"]
    assert not site.layout.export(new).exists()
    newest = rewrite_branch(upstream, {"z": "z"})
    assert export_overlay(site, "java") == OverlayRecord(old)
    assert frozen_upstream.output().startswith(
        f"  java: main was rewritten: {newest[:7]} does not go back "
    )
    assert resolve(site).overlays["java"].commit == newest
    assert export_overlay(site, "java") == OverlayRecord(newest)


def test_an_overlay_that_cannot_be_reached(
    frozen_upstream: FakeUpstream, upstream: Path, tmp_path: Path
) -> None:
    """It is said, and no more, when the pinned commit is here."""
    site = with_overlay(frozen_upstream, upstream)
    old = resolve(site).overlays["java"].commit
    away = upstream.rename(tmp_path / "away")
    frozen_upstream.output()
    with refused(BinmillError, "overlay-not-fetched") as error:
        export_overlay(site, "java")
    assert PASSWORD not in str(error.value)
    assert not site.layout.export(old).exists()
    away.rename(upstream)
    export_overlay(site, "java")
    upstream.rename(away)
    frozen_upstream.output()
    assert export_overlay(site, "java") == OverlayRecord(old)
    (said,) = frozen_upstream.output().splitlines()
    assert said.startswith(f"  could not read file://localhost{upstream}: ")


def test_a_snapshot_asks_for_news(frozen_upstream: FakeUpstream, upstream: Path) -> None:
    """`doit snapshot` is what asks upstream each day: of pinned overlays, too."""
    site = with_overlay(frozen_upstream, upstream)
    old = resolve(site).overlays["java"].commit
    export_overlay(site, "java")
    new = commit(upstream, {"x": "y"})
    frozen_upstream.output()
    _, said = frozen_upstream.snapshot(site)
    news = f"java: main has moved on to {new[:7]} (pinned: {old[:7]})"
    assert f"  {news}; `doit lock` follows\n" in said
    update = Note("overlay-moved", {"update": news})
    assert updates.read(site.layout, "overlay:java", old) == update
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
    resolve(frozen_upstream.site())
    with pytest.raises(Stale, match="does not pin the overlay java") as stale:
        export_overlay(with_overlay(frozen_upstream, upstream), "java")
    assert "doit lock" in stale.value.hint
