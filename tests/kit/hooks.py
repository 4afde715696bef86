"""Hooks of a site, as scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.layout import Layout

KEEP_EVENT = 'cat >> "events-of-${0##*/}"; echo >> "events-of-${0##*/}"\n'


def write_hook(layout: Layout, event: str, script: str = KEEP_EVENT) -> Path:
    """Write the hook of an event; the usual one keeps each event in a file of the site."""
    layout.hooks.mkdir(parents=True, exist_ok=True)
    path = layout.hooks / event
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    return path


def events_of(layout: Layout, event: str) -> list[dict[str, Any]]:
    """The events that the usual hook got, in their order."""
    path = layout.site / f"events-of-{event}"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]
