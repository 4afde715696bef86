"""lock, tree and overlay: pins, exports of pinned commits, notes about newer ones."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tasks import lock as locks
from tasks import updates
from tasks.errors import BinmillError, Stale
from tasks.flow import trees
from tasks.lock import Lock, SeedPin, TreePin
from tasks.records import Inputs, OverlayRecord, Request, SnapshotRecord, TreeRecord
from tasks.seed import download
from tasks.seed.download import StageSource
from tasks.site import Site
from tasks.system.http import NotOnMirrors
from tasks.system.notes import Note, listening
from tests.kit.fake_upstream import NEXT, PASSWORD, FakeUpstream
from tests.kit.files import names
from tests.kit.overlays import commit, git, rewrite_branch
from tests.kit.refused import refused
from tests.kit.snapshots import DAY

SEEDS = {"openrc": {"flavour": "openrc", "key": "stages"}}


def resolve_seeds_to(monkeypatch: pytest.MonkeyPatch, path: str) -> list[str]:
    """Resolve every seed to a path; returns the flavours that are looked up."""
    flavours: list[str] = []

    def resolve(source: StageSource, *_: Any) -> SeedPin:
        seed = source.seed
        flavours.append(str(seed.flavour))
        digest = f"{len(path):0128x}"
        return SeedPin(arch=seed.arch, flavour=seed.flavour, path=path, size=7, sha512=digest)

    monkeypatch.setattr(download, "resolve", resolve)
    return flavours


@pytest.fixture(autouse=True)
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return resolve_seeds_to(monkeypatch, "1/stage3.tar.xz")


@pytest.fixture
def notes() -> Iterator[list[Note]]:
    """The notes of the test so far, except those of `doit snapshot`."""
    notes: list[Note] = []
    with listening(notes.append):
        yield notes


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """An overlay's own repository."""
    path = tmp_path / "upstream"
    subprocess.run(["git", "init", "-q", "-b", "main", path], check=True)
    commit(path, {"profiles/repo_name": "java\n"})
    return path


def with_overlay(fake_upstream: FakeUpstream, upstream: Path, **more: Any) -> Site:
    """A site that has the overlay `java`, at a URL with a password."""
    url = f"file://me:{PASSWORD}@localhost{upstream}"
    return fake_upstream.site(more={"overlays": {"java": {"url": url}}}, **more)


def take(notes: list[Note]) -> list[Note]:
    """Return the notes so far and clear the list."""
    copy = notes.copy()
    notes.clear()
    return copy


def unchanged_note(tag: str) -> Note:
    return Note("lock-unchanged", {"name": "config.lock", "tag": tag})


def written_note(site: Site, lock: Lock) -> Note:
    return Note(
        "lock-written",
        {"path": site.layout.lock, "tag": lock.tree.tag, "commit": lock.tree.commit},
    )


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
    for day in ("", "20260115"):
        with refused(Stale, "nothing-frozen"):
            resolve(site, tree=day)
        assert not site.layout.lock.exists()


def test_lock_moves_pins_only_when_named(frozen_upstream: FakeUpstream, notes: list[Note]) -> None:
    site = frozen_upstream.site()
    lock = resolve(site, named=False)
    assert lock.tree.tag == "20260115"
    assert take(notes) == [written_note(site, lock)]
    text = site.layout.lock.read_bytes()
    freeze(frozen_upstream, site)
    assert resolve(site, named=False) == lock
    assert site.layout.lock.read_bytes() == text
    assert take(notes) == [unchanged_note("20260115")]
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
    less = frozen_upstream.site()  # its pins go, too
    assert set(resolve(less, named=False).seeds) == {"openrc"}


def test_lock_notes_every_moved_pin(
    frozen_upstream: FakeUpstream,
    upstream: Path,
    notes: list[Note],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    resolve(site)
    old = git(upstream, "rev-parse", "HEAD")
    new = commit(upstream, {"x": "y"})
    resolve_seeds_to(monkeypatch, "20/stage3.tar.xz")
    frozen = freeze(frozen_upstream, site)
    notes.clear()
    lock = resolve(site)
    assert lock.tree == TreePin(tag="20260116", commit=frozen.commit)
    assert lock.overlays["java"].commit == new
    assert take(notes) == [
        written_note(site, lock),
        Note("overlay-pin-moved", {"overlay": "java", "old": old, "new": new, "branch": "main"}),
        Note(
            "seed-pin-moved",
            {"seed": "openrc", "old": "1/stage3.tar.xz", "new": "20/stage3.tar.xz"},
        ),
    ]
    resolve(site)
    assert take(notes) == [unchanged_note("20260116")]


def test_lock_of_a_day_keeps_all_other_pins(
    frozen_upstream: FakeUpstream,
    upstream: Path,
    notes: list[Note],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    freeze(frozen_upstream, site)
    before = resolve(site)
    assert before.tree.tag == "20260116"
    notes.clear()
    commit(upstream, {"x": "y"})
    monkeypatch.setattr(download, "resolve", lambda *_: pytest.fail("a seed was looked up"))
    lock = resolve(site, tree="20260115")
    assert lock == before.model_copy(update={"tree": lock.tree})
    assert lock.tree.tag == "20260115"
    assert take(notes) == [written_note(site, lock)]
    assert export_tree(site).tag == "20260115"
    assert resolve(site, tree="20260115") == lock
    assert take(notes) == [unchanged_note("20260115")]


@pytest.mark.parametrize(
    ("day", "code"),
    [
        ("20260151", "day-misspelt"),
        ("2026-01-15", "day-misspelt"),
        ("main", "day-not-frozen"),
        ("refs/tags/20260115/../x", "day-not-frozen"),
        ("--help", "day-not-frozen"),
    ],
)
def test_lock_of_an_unknown_day_is_refused(
    frozen_upstream: FakeUpstream, day: str, code: str
) -> None:
    site = frozen_upstream.site()
    resolve(site)
    text = site.layout.lock.read_bytes()
    with refused(BinmillError, code, day=day, newest=["20260115"]):
        resolve(site, tree=day)
    assert site.layout.lock.read_bytes() == text


def test_export_tree_writes_the_locked_commit(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    frozen = freeze(frozen_upstream, site)
    resolve(site, named=False)
    record = export_tree(site)
    assert record == TreeRecord(frozen.tag, frozen.commit, frozen.timestamp)
    ebuild = site.layout.export(frozen.commit) / "app-misc/one/one-1.ebuild"
    assert ebuild.read_text() == f"EAPI=8\n# {NEXT}\n"


@pytest.mark.parametrize("has", ["remote", "mirror", "mirror, remote empty", "mirror, no remote"])
def test_lock_from_another_machine_gives_the_same_commit(
    frozen_upstream: FakeUpstream, tmp_path: Path, notes: list[Note], has: str
) -> None:
    """From the remote, or frozen again from a mirror."""
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
    notes.clear()
    assert export_tree(other) == export_tree(here)
    assert (other.layout.export(export_tree(here).commit) / "profiles/repo_name").exists()
    assert ("remote-not-read" in [note.code for note in notes]) == (has == "mirror")
    frozen_upstream.assert_nothing_left(other)


def test_lock_that_cannot_be_satisfied_is_refused(frozen_upstream: FakeUpstream) -> None:
    here = frozen_upstream.site()
    lock = resolve(here, named=False)
    other = frozen_upstream.site(name="other", remote=None)
    locks.write(other.layout, lock)
    with refused(NotOnMirrors, "no-mirror-accepted"):
        export_tree(other)
    frozen_upstream.assert_nothing_left(other)
    frozen_upstream.publish("one", frozen_upstream.signed(DAY), DAY)
    wrong = lock.tree.model_copy(update={"commit": "d" * 40})
    locks.write(other.layout, lock.model_copy(update={"tree": wrong}))
    with refused(BinmillError, "tag-not-locked-commit", commit="d" * 40):
        export_tree(other)
    wrong = lock.tree.model_copy(update={"tag": "20200101"})
    locks.write(here.layout, lock.model_copy(update={"tree": wrong}))
    with refused(BinmillError, "tag-not-locked-commit", tag="20200101"):
        export_tree(here)


@pytest.mark.parametrize("tag", ["newest", "2026115", "20260230"])
def test_lock_that_names_no_day_is_refused(frozen_upstream: FakeUpstream, tag: str) -> None:
    site = frozen_upstream.site(remote=None)
    lock = resolve(site, named=False)
    wrong = lock.tree.model_copy(update={"tag": tag, "commit": "d" * 40})
    locks.write(site.layout, lock.model_copy(update={"tree": wrong}))
    with refused(BinmillError, "not-a-day", source="config.lock", text=tag):
        export_tree(site)


def update(code: str, pinned: str, head: str) -> Note:
    fields = {"overlay": "java", "branch": "main", "pinned": pinned, "head": head}
    return Note(code, fields)


def test_overlay_stays_at_its_pin(
    frozen_upstream: FakeUpstream, upstream: Path, notes: list[Note]
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    old = resolve(site).overlays["java"].commit
    notes.clear()
    assert export_overlay(site, "java") == OverlayRecord(old)
    assert take(notes) == []
    new = commit(upstream, {"x": "y"})
    assert export_overlay(site, "java") == OverlayRecord(old)
    assert take(notes) == [update("overlay-moved", old, new)]
    assert names(site.layout.export(old)) == ["profiles"]
    assert not site.layout.export(new).exists()
    newest = rewrite_branch(upstream, {"z": "z"})
    assert export_overlay(site, "java") == OverlayRecord(old)
    assert take(notes) == [update("overlay-rewritten", old, newest)]
    assert resolve(site).overlays["java"].commit == newest
    assert export_overlay(site, "java") == OverlayRecord(newest)


def test_unreachable_overlay_is_a_note_where_the_pin_is_here(
    frozen_upstream: FakeUpstream, upstream: Path, tmp_path: Path, notes: list[Note]
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    old = resolve(site).overlays["java"].commit
    away = upstream.rename(tmp_path / "away")
    with refused(BinmillError, "overlay-not-fetched") as error:
        export_overlay(site, "java")
    assert PASSWORD not in str(error.value)
    assert not site.layout.export(old).exists()
    away.rename(upstream)
    export_overlay(site, "java")
    upstream.rename(away)
    notes.clear()
    assert export_overlay(site, "java") == OverlayRecord(old)
    (note,) = notes
    assert note.code == "update-unknown"
    assert str(note.fields["cause"]).startswith(f"could not read file://localhost{upstream}: ")


def test_snapshot_looks_for_updates_of_overlays(
    frozen_upstream: FakeUpstream, upstream: Path
) -> None:
    site = with_overlay(frozen_upstream, upstream)
    old = resolve(site).overlays["java"].commit
    export_overlay(site, "java")
    new = commit(upstream, {"x": "y"})
    moved = update("overlay-moved", old, new)
    assert moved in frozen_upstream.snapshot(site)[1]
    assert updates.read(site.layout, "overlay:java", old) == moved
    assert locks.read(site.layout).overlays["java"].commit == old
    elsewhere = site.config.overlays["java"].model_copy(update={"branch": "other"})
    config = site.config.model_copy(update={"overlays": {"java": elsewhere}})
    _, notes = frozen_upstream.snapshot(Site(site.layout, config))
    assert not any("overlay" in note.fields for note in notes)  # another branch is not pinned
    (site.layout.overlay("java") / "HEAD").unlink()  # snapshot does not fail for it
    _, notes = frozen_upstream.snapshot(site)
    causes = [str(note.fields["cause"]) for note in notes if note.code == "update-unknown"]
    assert "java.git is damaged: " in causes[0]


def test_overlay_that_the_lock_does_not_pin_is_refused(
    frozen_upstream: FakeUpstream, upstream: Path
) -> None:
    resolve(frozen_upstream.site())
    with refused(Stale, "pin-missing", kind="overlay", name="java"):
        export_overlay(with_overlay(frozen_upstream, upstream), "java")
