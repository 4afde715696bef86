"""What is kept: a function of the lock, the records and the generations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.lock import Lock, OverlayPin, SeedPin, TreePin
from tasks.upkeep.reachable import Artifact, Known, kept

LAYOUT = Layout(site=Path("/site"), state=Path("/site/state"))
TREE, OVERLAY, OLD = "a" * 40, "b" * 40, "c" * 40
SEED = "d" * 128
LOCK = Lock(
    tree=TreePin(tag="20260101", commit=TREE),
    overlays={"java": OverlayPin(url="https://x.example/java.git", branch="main", commit=OVERLAY)},
    seeds={
        "openrc": SeedPin(arch="amd64", flavour="openrc", path="x/y.tar.xz", size=1, sha512=SEED)
    },
)
ARTIFACTS = {"etc:base": Artifact(lambda record: [LAYOUT.state / record["path"]])}


def test_nothing_is_known() -> None:
    assert kept(LAYOUT, Known(None, (), ()), {}) == frozenset()


def test_what_the_lock_names() -> None:
    assert kept(LAYOUT, Known(LOCK, (), ()), {}) == {
        LAYOUT.export(TREE),
        LAYOUT.export(OVERLAY),
        LAYOUT.seed(SEED),
        LAYOUT.seed_listing(SEED),
    }


def test_what_records_name_those_put_aside_too() -> None:
    known = Known(None, (("etc:base", {"path": "etc/base/1"}), ("etc:base", {"path": "etc/2"})), ())
    assert kept(LAYOUT, known, ARTIFACTS) == {
        Path("/site/state/etc/base/1"),
        Path("/site/state/etc/2"),
    }


def test_what_generations_name() -> None:
    facts = {"set": "5" * 32, "revisions": {"gentoo": OLD, "java": OVERLAY}}
    assert kept(LAYOUT, Known(None, (), (("base", facts),)), {}) == {
        LAYOUT.binpkgs("base") / ("5" * 32),
        LAYOUT.export(OLD),
        LAYOUT.export(OVERLAY),
    }


@pytest.mark.parametrize("record", [{}, {"path": 3}, {"path": None}, {"path": ["x"]}])
def test_a_record_that_says_nothing_is_an_error(record: dict[str, Any]) -> None:
    """Else what it names would be taken for unwanted."""
    with pytest.raises(BinmillError, match="the record of etc:base is damaged"):
        kept(LAYOUT, Known(None, (("etc:base", record),), ()), ARTIFACTS)
