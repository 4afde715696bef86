"""Upstream updates: what overlays and seeds have beyond their pins, kept for `doit status`.

An update is no record: it changes by itself, and no task depends on it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict

from tasks import messages
from tasks.layout import Layout
from tasks.system.files import write_atomic
from tasks.system.notes import Note


def keep(layout: Layout, task: str, pin: str, update: Note | None) -> None:
    """Keep the update beyond the pin of an overlay (a commit) or seed (a path), or that none is."""
    path = layout.upstream_update(task)
    if update is None:
        path.unlink(missing_ok=True)
    else:
        write_atomic(path, json.dumps({"pinned": pin, **asdict(update)}) + "\n")


def read(layout: Layout, task: str, pin: str) -> Note | None:
    """The update that was kept for a task, if its pin is still the same."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        entry = json.loads(layout.upstream_update(task).read_text(encoding="utf-8"))
        if entry["pinned"] == pin:
            update = Note(str(entry["code"]), dict(entry["fields"]))
            messages.sentence(update.code, update.fields)  # of another version, it may have none
            return update
    return None
