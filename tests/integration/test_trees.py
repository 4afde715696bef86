"""snapshot, lock and tree: what they do with what the mirrors and the remote have."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks import lock as locks
from tasks.chroot import seed as seeds
from tasks.config import Config
from tasks.errors import BinmillError, DownloadFailed, Stale
from tasks.flow import trees
from tasks.layout import Layout
from tasks.lock import SeedPin
from tasks.site import Site
from tasks.snapshot import mirror as mirrors
from tasks.snapshot.mirror import Tarball
from tests.conftest import names
from tests.integration.test_freeze import references
from tests.snapshots import accepted, snapshot

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
BEFORE = YESTERDAY - timedelta(days=1)


def tag(day: date) -> str:
    return f"{day:%Y%m%d}"


def pin(seed: Any, size: int) -> SeedPin:
    return SeedPin(arch=seed.arch, flavour=seed.flavour, path="x", size=size, sha512="ab" * 64)


@dataclass
class Mirror:
    """A mirror whose signatures have been verified; `asked` are the days asked for."""

    folder: Path
    days: set[date] = field(default_factory=set)
    asked: list[date] = field(default_factory=list)

    def newest_day(self, _mirrors: Any, _name: str, days: Iterator[date], _: Path) -> date | None:
        self.asked = list(days)
        return next((day for day in self.asked if day in self.days), None)

    @contextlib.contextmanager
    def fetched(self, _m: Any, _n: str, day: date, _role: Any, scratch: Path) -> Iterator[Tarball]:
        assert scratch.is_dir()
        if day not in self.days:
            raise DownloadFailed(f"nobody has {day}")
        yield accepted(snapshot(self.folder, day, {"day": str(day).encode()}))


pytestmark = pytest.mark.usefixtures("environment_comes_back")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    made = Mirror(tmp_path / "mirror")
    made.folder.mkdir()
    monkeypatch.setattr(mirrors, "newest_day", made.newest_day)
    monkeypatch.setattr(mirrors, "fetched", made.fetched)
    monkeypatch.setattr(seeds, "resolve", lambda entry, *_: pin(entry, 7))
    return made


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "remote.git"], check=True)
    return tmp_path / "remote.git"


def site_at(folder: Path, remote: Path | str | None = None, **more: Any) -> Site:
    raw: dict[str, Any] = {
        "keys": {"k": {"file": "k.asc", "fingerprints": ["A" * 40]}},
        "mirrors": {"gentoo": ["http://mirror.example"]},
        "tree": {"key": "k", "lookback_days": 5, **({"remote": str(remote)} if remote else {})},
        "seeds": {"openrc": {"flavour": "openrc", "key": "k"}},
        "chroots": {},
        **more,
    }
    folder.mkdir(exist_ok=True)
    return Site(Layout(folder, folder / "state"), Config.model_validate(raw))


@pytest.fixture
def site(tmp_path: Path, remote: Path) -> Site:
    return site_at(tmp_path / "site", remote)


def test_the_newest_is_frozen_and_pushed(
    site: Site, mirror: Mirror, remote: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.days = {BEFORE}
    record = trees.snapshot(site, asked=True)
    assert record["tag"] == tag(BEFORE)
    assert mirror.asked == [YESTERDAY - timedelta(days=n) for n in range(5)]
    assert references(remote) == references(site.layout.tree)
    said = capsys.readouterr().out
    assert f"frozen gentoo {tag(BEFORE)} as {record['commit'][:12]}" in said
    assert f"pushed {tag(BEFORE)} to {remote}" in said
    assert names(site.layout.work) == []


def test_nothing_newer(site: Site, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.days = {BEFORE}
    first = trees.snapshot(site, asked=True)
    before = references(site.layout.tree)
    capsys.readouterr()
    assert trees.snapshot(site, asked=True) == first
    assert mirror.asked == [YESTERDAY]  # older days are not even asked for
    assert references(site.layout.tree) == before
    assert capsys.readouterr().out == (
        f"  no newer snapshot than {tag(BEFORE)} (1 mirror asked); nothing was changed\n"
    )


def test_nothing_at_all(site: Site, mirror: Mirror) -> None:  # noqa: ARG001
    with pytest.raises(BinmillError, match="last 5 days") as failed:
        trees.snapshot(site, asked=True)
    assert "lookback_days" in failed.value.hint


def test_a_push_that_failed_is_made_up_for(tmp_path: Path, mirror: Mirror, remote: Path) -> None:
    """The freeze stands; the next run pushes, though there is nothing newer."""
    mirror.days = {YESTERDAY}
    away = remote.rename(tmp_path / "away.git")
    site = site_at(tmp_path / "site", remote)
    with pytest.raises(BinmillError, match="could not be pushed"):
        trees.snapshot(site, asked=True)
    held = references(site.layout.tree)
    assert f"refs/tags/{tag(YESTERDAY)}" in held
    away.rename(remote)
    trees.snapshot(site, asked=True)
    assert references(remote) == held


def test_lock_before_there_is_anything(site: Site, mirror: Mirror) -> None:  # noqa: ARG001
    with pytest.raises(Stale, match="nothing is frozen yet") as stale:
        trees.lock(site, asked=True)
    assert stale.value.hint == "run `doit snapshot lock`"
    assert not site.layout.lock.exists()


def test_lock_follows_only_when_it_is_asked(
    site: Site, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.days = {BEFORE}
    trees.snapshot(site, asked=True)
    record = trees.lock(site, asked=False)
    assert record["tree"]["tag"] == tag(BEFORE)
    text = site.layout.lock.read_bytes()
    mirror.days = {YESTERDAY}
    trees.snapshot(site, asked=True)
    assert trees.lock(site, asked=False) == record
    assert site.layout.lock.read_bytes() == text
    assert "is unchanged" in capsys.readouterr().out
    assert trees.lock(site, asked=True)["tree"]["tag"] == tag(YESTERDAY)


def test_lock_fills_only_the_gaps(
    site: Site, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.days = {BEFORE}
    trees.snapshot(site, asked=True)
    trees.lock(site, asked=False)
    resolved: list[str] = []

    def resolve(entry: Any, *_: Any) -> SeedPin:
        resolved.append(entry.flavour)
        return pin(entry, 8)

    monkeypatch.setattr(seeds, "resolve", resolve)
    more = site_at(site.layout.site, seeds={
        "openrc": {"flavour": "openrc", "key": "k"}, "other": {"flavour": "musl", "key": "k"},
    })  # fmt: skip
    mirror.days = {YESTERDAY}
    trees.snapshot(more, asked=True)
    made = trees.lock(more, asked=False)
    assert resolved == ["musl"]
    assert made["seeds"]["openrc"]["size"] == 7
    assert made["tree"]["tag"] == tag(BEFORE)
    less = site_at(site.layout.site)  # what is not wanted any more is not pinned any more
    assert set(trees.lock(less, asked=False)["seeds"]) == {"openrc"}


def test_a_tree_as_files(site: Site, mirror: Mirror) -> None:
    mirror.days = {BEFORE}
    frozen = trees.snapshot(site, asked=True)
    trees.lock(site, asked=False)
    record = trees.tree(site)
    assert record == {key: frozen[key] for key in ("tag", "commit", "timestamp")}
    assert (site.layout.export(frozen["commit"]) / "day").read_text() == str(BEFORE)


@pytest.mark.parametrize("has", ["remote", "mirror", "mirror, remote empty", "mirror, no remote"])
def test_a_lock_from_another_machine(
    site: Site, mirror: Mirror, remote: Path, tmp_path: Path, has: str
) -> None:
    """The same commit, from the remote or frozen again; an old lock needs no older mirror."""
    mirror.days = {BEFORE}
    trees.snapshot(site, asked=True)
    trees.lock(site, asked=False)
    elsewhere: Path | str | None = remote
    if has == "remote":
        mirror.days = set()
    elif has == "mirror":
        elsewhere = tmp_path / "gone.git"
    elif has == "mirror, no remote":
        elsewhere = None
    else:
        elsewhere = tmp_path / "empty.git"
        subprocess.run(["git", "init", "-q", "--bare", elsewhere], check=True)
    other = site_at(tmp_path / "other", elsewhere)
    locks.write(other.layout, locks.read(site.layout))
    assert trees.tree(other) == trees.tree(site)
    assert (other.layout.export(trees.tree(site)["commit"]) / "day").exists()


def test_a_lock_that_nobody_can_satisfy(site: Site, mirror: Mirror, tmp_path: Path) -> None:
    mirror.days = {BEFORE}
    trees.snapshot(site, asked=True)
    trees.lock(site, asked=False)
    held = locks.read(site.layout)
    other = site_at(tmp_path / "other")
    locks.write(other.layout, held)
    mirror.days = set()
    with pytest.raises(DownloadFailed):
        trees.tree(other)
    mirror.days = {BEFORE}
    wrong = held.tree.model_copy(update={"commit": "d" * 40})
    locks.write(other.layout, held.model_copy(update={"tree": wrong}))
    with pytest.raises(BinmillError, match="is not the locked commit dddddddddddd"):
        trees.tree(other)
    wrong = held.tree.model_copy(update={"tag": "20200101"})
    locks.write(site.layout, held.model_copy(update={"tree": wrong}))
    with pytest.raises(BinmillError, match="edited by hand"):
        trees.tree(site)
