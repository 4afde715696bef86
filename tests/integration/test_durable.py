"""Durable per task: killed at every boundary of a record, a run ends as one that was not.

The steps take no time here; tests/e2e/test_durable.py does it with the real Portage.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.step_project import StepProject, write_file
from tests.programs import kill_at_boundaries
from tests.programs.kill_at_boundaries import POINTS

TASKS = ("one", "two:x", "three", "looks", "locks")
WORDS = ("three", "looks", "locks")
RUNS = {
    "one": "one",
    "two:x": "two",
    "three": "three",
    "looks": "looks asked",
    "locks": "locks asked",
}


def new_project(folder: Path) -> StepProject:
    folder.mkdir()
    return StepProject(folder)


def stored_state(site: StepProject) -> dict[str, bytes]:
    """The records, and what doit remembers except the times of files."""
    files = {path.name: path.read_bytes() for path in site.record("one").parent.iterdir()}
    with sqlite3.connect(site.folder / "state" / "doit.db") as database:
        rows = database.execute("select task_id from doit order by task_id").fetchall()
    database.close()
    return {**files, "remembered": repr(rows).encode()}


def run_to_boundary(site: StepProject, words: tuple[str, ...]) -> tuple[str, int]:
    """Run until the next boundary; returns its name ("" at the end) and the exit code."""
    passed = site.folder / "passed"
    before = passed.read_text().splitlines() if passed.exists() else []
    result = subprocess.run(
        python(kill_at_boundaries, passed, *words),
        cwd=site.folder,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        timeout=120,
    )
    after = passed.read_text().splitlines()
    return (after[-1] if len(after) > len(before) else ""), result.returncode


@pytest.mark.parametrize("first", ["nothing is made", "all is made anew"])
def test_killed_at_every_boundary(tmp_path: Path, first: str) -> None:
    quiet, site = new_project(tmp_path / "quiet"), new_project(tmp_path / "killed")
    for each in (quiet, site):
        if first == "all is made anew":
            each.doit(*WORDS)
            for name in ("input", "setting"):
                write_file(name, "new")(each)
            write_file("below/new", "x")(each)
    quiet.doit(*WORDS)
    site.ran()
    places: list[str] = []
    while True:
        place, code = run_to_boundary(site, WORDS)
        ran = site.ran()
        if not place:
            assert code == 0
            break
        assert code == -signal.SIGKILL
        places.append(place)
        task, point = place.rsplit(" ", 1)
        # no task that doit remembers runs again, except on-demand ones
        done = [p.removesuffix(" remembered") for p in places[:-1] if p.endswith(" remembered")]
        assert not {RUNS[t] for t in done if t in TASKS[:3]} & set(ran), place
        if point == "made":
            assert not site.record(task.replace(":", ".")).exists()
    every = [f"{task} {point}" for task in TASKS[:-1] for point in POINTS]
    assert sorted(places) == sorted([*every, "locks remembered"])  # its record is its target
    assert stored_state(site) == stored_state(quiet)
    assert site.doit("three").startswith("nothing to do")
    assert "nothing would run" in site.doit("why", "three")
