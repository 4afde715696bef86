"""A candidate that a killed run had ready is taken up; one that was finished is made anew."""

from __future__ import annotations

import json

import pytest

from tasks import records
from tasks.flow import publishing
from tasks.layout import Layout
from tasks.publish import ledger
from tests.unit.test_graph import ONE, site_of


def candidate(layout: Layout, number: int, asked: str) -> None:
    folder = layout.binhost("base") / ledger.CANDIDATES / str(number)
    folder.mkdir(parents=True)
    facts = {"asked": asked, "timestamp": 2_000_000_000 + number, "views": {}}
    (folder / ledger.FACTS).write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("before", "asked", "taken"),
    [(None, "this", 2), (1, "this", 2), (2, "this", None), (None, "other", None)],
)
def test_what_a_kill_left(layout: Layout, before: int | None, asked: str, taken: int) -> None:
    site = site_of(ONE)
    site = type(site)(layout, site.config)
    assert publishing._left_by_a_kill(site, "base", "this") is None
    candidate(layout, 2, asked)
    if before:
        records.aside(layout, "candidate:base").parent.mkdir(parents=True)
        records.aside(layout, "candidate:base").write_text(json.dumps({"generation": before}))
    assert publishing._left_by_a_kill(site, "base", "this") == taken
