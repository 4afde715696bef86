"""A binhost that version 0.1 wrote (tests/data/version_0_1) stays valid and in use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tasks.domain import Package
from tasks.publish import candidate, generation, published, verify
from tasks.publish.generation import Issue, Source
from tests.kit.binhost import SIGNER, SampleBinhost
from tests.kit.project import PROJECT

X, Y = "a-b/x/x-1-1.gpkg.tar", "a-b/y/y-1-2.gpkg.tar"


@pytest.fixture
def site(tmp_path: Path) -> SampleBinhost:
    """A binhost with generation 1 of version 0.1, which is current."""
    sample = SampleBinhost(tmp_path)
    shutil.copytree(PROJECT / "tests/data/version_0_1", sample.binhost, symlinks=True)
    return sample


def manifest(site: SampleBinhost, number: int) -> dict[str, object]:
    text = (site.binhost / f"gen/{number}/role.java/release.json").read_text()
    return dict(json.loads(text))


def test_generation_is_current_and_intact(site: SampleBinhost) -> None:
    current = generation.load_current(site.binhost)
    assert current is not None
    assert current.source == Source("set1", SIGNER, {"gentoo": "c" * 40}, inputs="9" * 64)
    stamp = 1795622179
    assert current.issue == Issue(stamp, stamp, {"public": 1, "role.java": 2}, packages=2)
    assert list(verify.flaws(site.binhost, 1, lambda _: None)) == []


def test_packages_are_reused(site: SampleBinhost) -> None:
    collected = published.read_paths(site.binhost)
    packages = [Package("", 1, "", "", "", path, 1, collected[path]) for path in (X, Y)]
    reused = published.reusable(site.binhost, packages, SIGNER)
    assert {path: each.location.read_bytes() for path, each in reused.items()} == {
        X: b"one signed 1",
        Y: b"two signed 1",
    }


def test_rollback_to_it_keeps_its_manifest_in_format_1(site: SampleBinhost) -> None:
    before = {path: path.read_bytes() for path in site.binhost.glob("gen/1/**/*.json")}
    number = site.publish_content(candidate.read_content(site.binhost / "gen/1"))
    assert number == 2
    assert list(verify.flaws(site.binhost, 2, lambda _: None)) == []
    old, new = manifest(site, 1), manifest(site, 2)
    for key in ("name", "set", "lock", "config", "format", "group", "packages"):
        assert new[key] == old[key], key
    assert new["format"] == 1
    assert {path: path.read_bytes() for path in site.binhost.glob("gen/1/**/*.json")} == before
    keys = {
        path.parent.name: set(json.loads(path.read_text()))
        for path in site.binhost.glob("gen/*/generation.json")
    }
    assert keys["2"] - keys["1"] == {"of"}
