"""config.lock: written sorted and whole, read strictly."""

from __future__ import annotations

import pytest
import tomli

from tasks import lock as locks
from tasks.config.tables import Config
from tasks.domain import Gap
from tasks.errors import ConfigError, Stale
from tasks.layout import Layout
from tasks.lock import Lock, OverlayPin, SeedPin, TreePin
from tests.kit.refused import refused

SEED = SeedPin(
    arch="amd64", flavour="openrc", path="20260101/stage3.tar.xz", size=7, sha512="ab" * 64
)


def overlay(url: str = "https://git.example/x.git", branch: str = "main") -> OverlayPin:
    return OverlayPin(url=url, branch=branch, commit="c" * 40)


LOCK = Lock(
    tree=TreePin(tag="20260101", commit="a" * 40),
    overlays={"zed": overlay(), "abc": overlay()},
    seeds={"two": SEED, "one": SEED},
)

CONFIG = Config.model_validate(
    {
        "keys": {"k": {"file": "k.asc", "fingerprints": ["A" * 40]}},
        "mirrors": {"gentoo": ["http://mirror.example"]},
        "tree": {"key": "k"},
        "overlays": {"abc": {"url": "https://git.example/x.git"}},
        "seeds": {"one": {"flavour": "openrc", "key": "k"}},
        "chroots": {},
    }
)


def test_written_lock_is_read_back(layout: Layout) -> None:
    locks.write(layout, LOCK)
    assert locks.read(layout) == LOCK


def test_same_lock_has_the_same_bytes(layout: Layout) -> None:
    locks.write(layout, LOCK)
    first = layout.lock.read_bytes()
    turned = {"overlays": dict(reversed(LOCK.overlays.items())), "seeds": dict(LOCK.seeds)}
    locks.write(layout, LOCK.model_copy(update=turned))
    assert layout.lock.read_bytes() == first
    raw = tomli.loads(first.decode())
    assert list(raw["overlays"]) == ["abc", "zed"]
    assert list(raw["seeds"]) == ["one", "two"]
    assert first.startswith(b"# Written by `doit lock`")


def test_missing_lock_is_none_or_stale(layout: Layout) -> None:
    assert locks.read_or_none(layout) is None
    with refused(Stale, "lock-missing", path=layout.lock):
        locks.read(layout)


def test_pin_that_is_missing_is_stale() -> None:
    assert locks.pin_of(LOCK.seeds, "seed", "one") == SEED
    with refused(Stale, "pin-missing", kind="seed", name="three"):
        locks.pin_of(LOCK.seeds, "seed", "three")


def test_complete_lock_has_no_gaps() -> None:
    assert LOCK.gaps(CONFIG) == []


@pytest.mark.parametrize(
    ("lock", "gap"),
    [
        (LOCK.model_copy(update={"overlays": {}}), Gap("overlay", "abc")),
        (LOCK.model_copy(update={"overlays": {"abc": overlay(branch="x")}}), Gap("overlay", "abc")),
        (
            LOCK.model_copy(update={"overlays": {"abc": overlay(url="/other")}}),
            Gap("overlay", "abc"),
        ),
        (LOCK.model_copy(update={"seeds": {"two": SEED}}), Gap("seed", "one")),
        (
            LOCK.model_copy(update={"seeds": {"one": SEED.model_copy(update={"flavour": "x"})}}),
            Gap("seed", "one"),
        ),
    ],
)
def test_unpinned_or_differing_pin_is_a_gap(lock: Lock, gap: Gap) -> None:
    assert lock.gaps(CONFIG) == [gap]


def _text(layout: Layout) -> str:
    locks.write(layout, LOCK)
    return layout.lock.read_text()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[tree]", "[tree", ""),
        ("version = 1", "version = 2", "version: "),
        ("version = 1", 'version = "1"', "version: "),
        ("version = 1", "colour = 1", "colour: "),
        ('tag = "20260101"', "", "tree.tag: Field required"),
        ("size = 7", 'size = "7"', "size: "),
        ("a" * 40, "--upload-pack=x", "tree.commit: "),
        ("c" * 40, "HEAD", "commit: "),
        ("abab", "ab", "sha512: "),
        ('"20260101"', '"-d"', "tree.tag: "),
    ],
)
def test_damaged_lock_is_one_line_with_the_place(
    layout: Layout, old: str, new: str, problem: str
) -> None:
    text = _text(layout)
    assert old in text
    layout.lock.write_text(text.replace(old, new, 1))
    with refused(ConfigError, "lock-unusable", path=layout.lock) as excinfo:
        locks.read_or_none(layout)
    cause = str(excinfo.value.fields["cause"])
    assert problem in cause
    assert "\n" not in cause


@pytest.mark.parametrize("content", [b"\xff", b"\0", b"<html>"])
def test_file_that_is_no_lock_is_refused(layout: Layout, content: bytes) -> None:
    layout.lock.write_bytes(content)
    with refused(ConfigError, "lock-unusable", path=layout.lock):
        locks.read_or_none(layout)
