"""Upstream updates that are stored for `doit status`."""

from __future__ import annotations

import json

import pytest

from tasks import updates
from tasks.layout import Layout
from tasks.system.notes import Note

TASK, PIN = "overlay:java", "1" * 40
UPDATE = Note("overlay-branch-gone", {"overlay": "java", "branch": "main", "pinned": PIN})


def test_update_is_read_while_its_pin_is_the_same(layout: Layout) -> None:
    updates.keep(layout, TASK, PIN, UPDATE)
    assert updates.read(layout, TASK, PIN) == UPDATE
    assert updates.read(layout, TASK, "2" * 40) is None
    updates.keep(layout, TASK, PIN, None)
    assert updates.read(layout, TASK, PIN) is None


@pytest.mark.parametrize(
    "content",
    [
        {"pinned": PIN, "code": "no-such-code", "fields": {}},
        {"pinned": PIN, "code": "overlay-branch-gone", "fields": {"overlay": "java"}},
        {"pinned": PIN, "says": "java: main has moved on"},
        [],
    ],
    ids=["unknown code", "field missing", "version 0.1", "no table"],
)
def test_update_of_another_version_is_ignored(layout: Layout, content: object) -> None:
    updates.keep(layout, TASK, PIN, UPDATE)
    layout.upstream_update(TASK).write_text(json.dumps(content))
    assert updates.read(layout, TASK, PIN) is None
