"""Pins: what config.lock pins for a task now, beside what its last run has used."""

from __future__ import annotations

from typing import Any

from tasks import lock as lock_file
from tasks import records
from tasks.causes import Cause, PinMoved, PinUnchanged
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.records import Key, OverlayRecord, SeedRecord, TreeRecord


def cause(layout: Layout, key: Key[Any]) -> Cause | None:
    """The cause that a change of config.lock is for a tree, an overlay or a seed.

    None where the lock or the record cannot be read, or the lock does not pin it.
    """
    try:
        lock, record = lock_file.read_or_none(layout), records.load(layout, key)
    except BinmillError:
        return None
    pins: list[tuple[str, str]] = []  # before and after, what tells the most first
    match record:
        case TreeRecord() if lock:
            pins = [(record.tag, lock.tree.tag), (record.commit, lock.tree.commit)]
        case OverlayRecord() if lock and (overlay := lock.overlays.get(key.name)):
            pins = [(record.commit, overlay.commit)]
        case SeedRecord() if lock and (seed := lock.seeds.get(key.name)):
            build = record.path.partition("/")[0]
            pins = [(build, seed.build), (record.path, seed.path), (record.sha512, seed.sha512)]
        case _:
            return None
    moved = [PinMoved(key.task, before, after) for before, after in pins if before != after]
    return moved[0] if moved else PinUnchanged()
