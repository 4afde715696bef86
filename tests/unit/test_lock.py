"""config.lock: written sorted and whole, read strictly."""

from __future__ import annotations

import pytest
import tomli

from tasks import lock as locks
from tasks.config.load import Config
from tasks.errors import ConfigError, Stale
from tasks.layout import Layout
from tasks.lock import Lock, OverlayPin, SeedPin, TreePin

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


def test_round_trip(layout: Layout) -> None:
    locks.write(layout, LOCK)
    assert locks.read(layout) == LOCK


def test_the_same_lock_has_the_same_bytes(layout: Layout) -> None:
    locks.write(layout, LOCK)
    first = layout.lock.read_bytes()
    turned = {"overlays": dict(reversed(LOCK.overlays.items())), "seeds": dict(LOCK.seeds)}
    locks.write(layout, LOCK.model_copy(update=turned))
    assert layout.lock.read_bytes() == first
    raw = tomli.loads(first.decode())
    assert list(raw["overlays"]) == ["abc", "zed"]
    assert list(raw["seeds"]) == ["one", "two"]
    assert first.startswith(b"# Written by `doit lock`")


def test_none_yet(layout: Layout) -> None:
    assert locks.load(layout) is None
    with pytest.raises(Stale, match="run `doit lock`"):
        locks.read(layout)


def test_nothing_is_missing() -> None:
    assert LOCK.missing(CONFIG) == []


@pytest.mark.parametrize(
    ("lock", "gap"),
    [
        (LOCK.model_copy(update={"overlays": {}}), "overlay abc"),
        (LOCK.model_copy(update={"overlays": {"abc": overlay(branch="x")}}), "overlay abc"),
        (LOCK.model_copy(update={"overlays": {"abc": overlay(url="/other")}}), "overlay abc"),
        (LOCK.model_copy(update={"seeds": {"two": SEED}}), "seed one"),
        (
            LOCK.model_copy(update={"seeds": {"one": SEED.model_copy(update={"flavour": "x"})}}),
            "seed one",
        ),
    ],
)
def test_what_is_missing(lock: Lock, gap: str) -> None:
    assert lock.missing(CONFIG) == [gap]


def _text(layout: Layout) -> str:
    locks.write(layout, LOCK)
    return layout.lock.read_text()


@pytest.mark.parametrize(
    ("old", "new", "told"),
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
def test_a_corrupt_lock_is_one_clear_error(layout: Layout, old: str, new: str, told: str) -> None:
    text = _text(layout)
    assert old in text
    layout.lock.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        locks.load(layout)
    assert str(layout.lock) in refused.value.message
    assert told in refused.value.message
    assert "\n" not in refused.value.message
    assert "doit lock" in refused.value.hint


@pytest.mark.parametrize("content", [b"\xff", b"\0", b"<html>"])
def test_not_a_lock(layout: Layout, content: bytes) -> None:
    layout.lock.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be used"):
        locks.load(layout)
