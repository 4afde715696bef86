"""The causes that a new config.lock is: what moved, by the records of the last run."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import lock as lock_file
from tasks import records
from tasks.causes import Cause, PinMoved, PinUnchanged
from tasks.flow import pins
from tasks.layout import Layout
from tasks.lock import Lock, OverlayPin, SeedPin, TreePin
from tasks.records import OVERLAY, SEED, TREE, Key, OverlayRecord, SeedRecord, TreeRecord

C, D, E = "c" * 40, "d" * 40, "e" * 128
STAGE = "20260801T170000Z/stage3.tar.xz"
LOCK = Lock(
    tree=TreePin(tag="20260802", commit=D),
    overlays={"ours": OverlayPin(url="https://git.example/ours.git", branch="main", commit=D)},
    seeds={"s": SeedPin(arch="amd64", flavour="openrc", path=STAGE, sha512=E)},
)
CASES: list[tuple[Key[Any], Any, Cause | None, str]] = [
    (TREE(), TreeRecord("20260802", D, 0), PinUnchanged(), ""),
    (
        TREE(),
        TreeRecord("20260801", C, 0),
        PinMoved("tree", "20260801", "20260802"),
        "tree 20260801 -> 20260802",
    ),
    (TREE(), TreeRecord("20260802", C, 0), PinMoved("tree", C, D), f"tree {C[:12]} -> {D[:12]}"),
    (OVERLAY("ours"), OverlayRecord(D), PinUnchanged(), ""),
    (
        OVERLAY("ours"),
        OverlayRecord(C),
        PinMoved("overlay:ours", C, D),
        f"overlay ours {C[:12]} -> {D[:12]}",
    ),
    (OVERLAY("other"), OverlayRecord(C), None, ""),
    (SEED("s"), SeedRecord(STAGE, E), PinUnchanged(), ""),
    (
        SEED("s"),
        SeedRecord("20260701T170000Z/stage3.tar.xz", "f" * 128),
        PinMoved("seed:s", "20260701T170000Z", "20260801T170000Z"),
        "seed s 20260701T170000Z -> 20260801T170000Z",
    ),
    (
        SEED("s"),
        SeedRecord(STAGE, "f" * 128),
        PinMoved("seed:s", "f" * 128, E),
        f"seed s {'f' * 12} -> {E[:12]}",
    ),
]


@pytest.mark.parametrize(("key", "record", "cause", "sentence"), CASES)
def test_cause_names_the_pin_before_and_after(
    layout: Layout, key: Key[Any], record: Any, cause: Cause | None, sentence: str
) -> None:
    lock_file.write(layout, LOCK)
    records.save(layout, key, record)
    result = pins.cause(layout, key)
    assert result == cause or type(result) is type(cause) is PinUnchanged
    if sentence:
        assert str(result) == sentence


def test_without_lock_or_record_it_is_not_known(layout: Layout) -> None:
    assert pins.cause(layout, TREE()) is None
    lock_file.write(layout, LOCK)
    assert pins.cause(layout, TREE()) is None
    layout.lock.write_text("damaged = ")
    records.save(layout, TREE(), TreeRecord("20260801", C, 0))
    assert pins.cause(layout, TREE()) is None
