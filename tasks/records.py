"""Records: what each finished task left, under state/records/, small and deterministic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.errors import Stale
from tasks.layout import Layout
from tasks.system.files import write_atomic

Record = dict[str, Any]


def read(layout: Layout, task: str) -> Record:
    """The record of a task; raises Stale naming the task where it has not run."""
    path = layout.record(task)
    try:
        loaded: Record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Stale(f"{task} has not been made yet", f"run `doit {task}`") from error
    return loaded


def aside(layout: Layout, task: str) -> Path:
    """Where the record of a task is kept while it is made anew."""
    return layout.record(task).with_suffix(".before")


def write(layout: Layout, task: str, record: Record) -> None:
    """Keep a record, sorted, in one step."""
    write_atomic(layout.record(task), json.dumps(record, indent=1, sort_keys=True) + "\n")


def tell(layout: Layout, task: str, pinned: str, said: str) -> None:
    """Keep what is newer upstream than what an overlay or a seed is pinned to; "" for nothing.

    `pinned` is the commit, or the path of the stage.

    No record: it changes by itself, and nothing depends on it.
    """
    path = layout.news(task)
    if said:
        write_atomic(path, json.dumps({"pinned": pinned, "said": said}) + "\n")
    else:
        path.unlink(missing_ok=True)


def news(layout: Layout, task: str, pinned: str) -> str:
    """What `tell` has kept of an overlay or a seed that is still pinned to that, else ""."""
    try:
        kept = json.loads(layout.news(task).read_text(encoding="utf-8"))
        return str(kept["said"]) if kept["pinned"] == pinned else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""
