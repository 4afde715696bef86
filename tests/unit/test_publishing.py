"""A candidate of the same content keeps its number; other content gets the next number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.flow import candidate
from tasks.publish import published


@pytest.mark.parametrize(
    ("generations", "asked", "number"),
    [([], "this", 2), ([1], "this", 2), ([2], "this", None), ([], "other", None)],
)
def test_number_of_a_candidate_after_a_killed_run(
    tmp_path: Path, generations: list[int], asked: str, number: int | None
) -> None:
    assert candidate._made_before(tmp_path, "this") is None
    for each in generations:
        (tmp_path / "gen" / str(each)).mkdir(parents=True)
    folder = tmp_path / published.CANDIDATES / "2"
    folder.mkdir(parents=True)
    (folder / published.FACTS).write_text(json.dumps({"asked": asked}))
    assert candidate._made_before(tmp_path, "this") == number
