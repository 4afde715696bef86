"""A site that version 0.1 made goes on: nothing is lost, and clients notice nothing. Its sets are
built once more, as packages get another SOURCE_DATE_EPOCH."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tasks.layout import Layout
from tasks.publish import generation
from tests.kit import old_site
from tests.kit.stub_site import doit

TASKS = ("tree", "overlay", "seed", "chroot")
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the seed of the site is root's")


@pytest.fixture
def site(tmp_path: Path) -> Layout:
    return old_site.unpack(tmp_path / "site")


def published_files(site: Layout) -> dict[str, bytes]:
    """All that clients of `base` can fetch."""
    top = site.binhost("base") / "current"
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


def test_site_of_0_1_is_up_to_date(site: Layout) -> None:
    assert "nothing to do" in doit(site, *TASKS)


def test_site_of_0_1_set_is_built_once_more(site: Layout) -> None:
    why = json.loads(doit(site, "why", "--json", "binpkgs:base"))
    assert [(each["task"], each["cause"]["code"]) for each in why] == [
        ("etc:base", "cause-settings"),  # this version has more of them
        *((f"{kind}:base", "cause-may-change") for kind in ("mount", "check")),
        ("plan:base", "cause-never-made"),
        ("binpkgs:base", "cause-settings"),
    ]
    doit(site, "etc:base")
    assert "nothing to do" in doit(site, "etc:base")


def test_site_of_0_1_status_and_commands_read_it(site: Layout) -> None:
    report = json.loads(doit(site, "status", "--json"))
    assert report["lock"]["tree"] == "20261127"
    assert report["binhosts"]["base"] == {"current": 2, "kept": [1, 2], "held": False}
    assert report["problems"] == []
    assert "current" in doit(site, "generations", "base")
    assert "generation 1 -> 2" in doit(site, "diff", "base", "1", "2")
    assert "no damage" in doit(site, "fsck")
    assert "seed:openrc" in doit(site, "info", "seed:openrc")


def test_site_of_0_1_gc_keeps_what_it_names(site: Layout) -> None:
    before = published_files(site)
    doit(site, "gc", "--yes")
    assert "nothing to do" in doit(site, *TASKS)
    assert published_files(site) == before


def test_site_of_0_1_publishing_again_changes_nothing_for_clients(site: Layout) -> None:
    """Its task declares more inputs now, so it runs once."""
    before = published_files(site)
    publish = ("run", "--single", "publish:base")
    assert "nothing to do" not in doit(site, *publish)
    assert published_files(site) == before
    assert generation.current(site.binhost("base")) == 2
    assert "nothing to do" in doit(site, *publish)
