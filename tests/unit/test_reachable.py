"""Paths that the lock, records and generations need: a function of these alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.chroot.manual_changes import Mark
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.lock import Lock, OverlayPin, SeedPin, TreePin
from tasks.publish.generation import Source
from tasks.records import ETC, Key, parse
from tasks.upkeep.reachable import References, reachable
from tests.kit.refused import refused

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


class EtcArtifact:
    """The artifact of a generated /etc/portage."""

    key: Key[Any] = ETC("base")

    def results_in(self, raw: bytes) -> list[Path]:
        return [LAYOUT.state / parse(ETC("base"), raw).path]

    def owned_in(self, raw: bytes) -> list[Path]:
        return self.results_in(raw)


ARTIFACTS = {"etc:base": EtcArtifact()}


def etc_record(path: object) -> tuple[str, bytes]:
    return "etc:base", json.dumps({"path": path, "files": []}).encode()


def test_reachable_without_references_is_empty() -> None:
    assert reachable(LAYOUT, References(None, (), ()), {}) == frozenset()


def test_reachable_contains_pins_of_the_lock() -> None:
    assert reachable(LAYOUT, References(LOCK, (), ()), {}) == {
        LAYOUT.export(TREE),
        LAYOUT.export(OVERLAY),
        LAYOUT.seed(SEED),
        LAYOUT.seed_listing(SEED),
    }


def test_reachable_contains_results_of_records_and_earlier_records() -> None:
    references = References(None, (etc_record("etc/base/1"), etc_record("etc/2")), ())
    assert reachable(LAYOUT, references, ARTIFACTS) == {
        Path("/site/state/etc/base/1"),
        Path("/site/state/etc/2"),
    }


def test_reachable_contains_sets_and_commits_of_generations() -> None:
    source = Source(set="5" * 32, signer="", revisions={"gentoo": OLD, "java": OVERLAY})
    assert reachable(LAYOUT, References(None, (), (("base", source),)), {}) == {
        LAYOUT.binpkgs("base") / ("5" * 32),
        LAYOUT.export(OLD),
        LAYOUT.export(OVERLAY),
    }


def test_reachable_contains_manual_changes_and_the_layers_below() -> None:
    mark = Mark("touched/base/1", ("layers/base/2", "seeds/3"))
    assert reachable(LAYOUT, References(None, (), (), (mark,)), {}) == {
        LAYOUT.state / "touched/base/1",
        LAYOUT.state / "layers/base/2",
        LAYOUT.state / "seeds/3",
        LAYOUT.state / "seeds/3.listing",
    }


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", *(etc_record(path)[1] for path in (3, None))])
def test_reachable_with_a_damaged_record_is_an_error(raw: bytes) -> None:
    """Otherwise its results would count as unneeded."""
    with refused(BinmillError, "unreadable-nothing-deleted", what="the record of etc:base"):
        reachable(LAYOUT, References(None, (("etc:base", raw),), ()), ARTIFACTS)
