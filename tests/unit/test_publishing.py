"""A candidate of the same content keeps its number; other content gets the next number."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.flow import candidate
from tasks.publish import generation
from tasks.publish.generation import Issue, Source


@pytest.mark.parametrize(
    ("generations", "inputs", "number"),
    [([], "this", 2), ([1], "this", 2), ([2], "this", None), ([], "other", None)],
)
def test_number_of_a_candidate_after_a_killed_run(
    tmp_path: Path, generations: list[int], inputs: str, number: int | None
) -> None:
    assert candidate._earlier_number(tmp_path, "this") is None
    for each in generations:
        (tmp_path / "gen" / str(each)).mkdir(parents=True)
    folder = tmp_path / generation.CANDIDATES / "2"
    folder.mkdir(parents=True)
    generation.write(folder, Source("", "", {}, inputs), Issue(1, 1, {}, 0))
    assert candidate._earlier_number(tmp_path, "this") == number
