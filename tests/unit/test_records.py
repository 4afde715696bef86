"""Records are typed, their files are strict, and a task reads only what the graph declares."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tasks import records
from tasks.domain import Package
from tasks.errors import Stale
from tasks.layout import Layout
from tasks.records import (
    BINPKGS,
    CHROOT,
    SEED,
    TREE,
    BinpkgsRecord,
    ChrootRecord,
    Inputs,
    SeedRecord,
    TreeRecord,
    UndeclaredInput,
)
from tests.kit.refused import refused

PACKAGE = Package("a-b/x-1", 2, "0/1", "ssl", "gentoo", "a-b/x/x-1-2.gpkg.tar", 3, "d" * 128)
SAMPLES = [
    (SEED("base"), SeedRecord("x/stage3.tar.xz", "a" * 128)),
    (TREE(), TreeRecord("20260310", "b" * 40, 1773187200)),
    (CHROOT("java"), ChrootRecord(("layers/java/1", "seeds/a"), ("java",))),
    (BINPKGS("java"), BinpkgsRecord("c" * 32, (PACKAGE,))),
]


@pytest.mark.parametrize(("key", "record"), SAMPLES, ids=lambda each: str(each)[:20])
def test_record_saved_is_loaded_equal(layout: Layout, key: Any, record: Any) -> None:
    records.save(layout, key, record)
    assert records.load(layout, key) == record
    text = layout.record(key.task).read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert text.endswith("}\n")


def test_record_of_version_0_1_is_loaded(layout: Layout) -> None:
    place = layout.record("chroot:java")
    place.parent.mkdir(parents=True)
    place.write_text('{"layers": ["layers/java/2", "layers/java/1"], "touched": ["java"]}')
    record = records.load(layout, CHROOT("java"))
    assert record == ChrootRecord(("layers/java/2", "layers/java/1"), ("java",))
    assert (record.own_layer("java"), record.unmodified("java")) == (
        "layers/java/1",
        ("layers/java/1",),
    )
    assert "touched" not in records.plain(replace(record, modified=()))


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"path": 3, "sha512": "x"}',
        b'{"path": "x", "sha512": "x", "more": 1}',
    ],
)
def test_record_missing_or_damaged_names_its_task(layout: Layout, content: bytes | None) -> None:
    if content is not None:
        layout.record("seed:base").parent.mkdir(parents=True)
        layout.record("seed:base").write_bytes(content)
    with refused(Stale, "record-missing", task="seed:base") as excinfo:
        records.load(layout, SEED("base"))
    assert excinfo.value.hint == "run `doit seed:base`"


def test_inputs_undeclared_record_raises_a_bug(layout: Layout) -> None:
    records.save(layout, SEED("base"), SeedRecord("x", "y"))
    inputs = Inputs(layout, frozenset([TREE()]))
    with pytest.raises(UndeclaredInput, match="seed:base is not declared; declared: tree"):
        _ = inputs[SEED("base")]
    assert records.reading(layout, [SEED("base")])[SEED("base")].path == "x"


def test_inputs_undeclared_lock_raises_a_bug(layout: Layout) -> None:
    with pytest.raises(UndeclaredInput, match=r"config\.lock is not declared"):
        Inputs(layout, frozenset()).lock()
    with refused(Stale, "lock-missing"):
        Inputs(layout, frozenset(), frozenset([layout.lock])).lock()


def test_keys_of_the_same_task_are_equal() -> None:
    assert SEED("base") == SEED("base") != SEED("other")
    assert (SEED("base").task, TREE().task) == ("seed:base", "tree")
