"""A small doit project of steps that follow the orders of a test."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks import journal
from tasks.journal import TaskRun
from tasks.site import CONFIG_VARIABLE
from tests.kit.programs import PROGRAMS
from tests.kit.project import PROJECT


class StepProject:
    """A small project of its own, run by the doit of this interpreter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(PROGRAMS / "steps_dodo.py", folder / "dodo.py")
        (folder / "input").write_text("word and more")
        (folder / "setting").write_text("s")
        (folder / "below").mkdir()

    def start(self, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        return self.start_program([*prefix, sys.executable, "-m", "doit", *words])

    def start_program(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program in this project's folder, without the site of this environment."""
        without_site = {k: v for k, v in os.environ.items() if k != CONFIG_VARIABLE}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**without_site, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def doit(self, *words: str, code: int = 0, prefix: tuple[str, ...] = ()) -> str:
        with self.start(*words, prefix=prefix) as process:
            printed, _ = process.communicate(timeout=120)
        assert process.returncode == code, printed
        return printed

    def why(self, *words: str) -> list[dict[str, Any]]:
        """The reasons of all tasks that would run, as `doit why --json` prints them."""
        reasons: list[dict[str, Any]] = json.loads(self.doit("why", "--json", *words))
        return reasons

    def last_run(self) -> dict[str, TaskRun]:
        """The newest run in the journal, by task."""
        return {run.task: run for run in journal.task_runs(self.folder / "state/logs/latest")}

    def ran(self) -> list[str]:
        """The steps that have run since the last call."""
        log = self.folder / "ran"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def order(self, step: str, what: str = "") -> None:
        (self.folder / f"do-{step}").write_text(what)

    def record(self, name: str) -> Path:
        return self.folder / "state" / "records" / f"{name}.json"

    def remembered_tasks(self) -> set[str]:
        with sqlite3.connect(self.folder / "state" / "doit.db") as database:
            rows = [row[0] for row in database.execute("select task_id from doit")]
        database.close()
        return set(rows)

    def state(self) -> dict[str, bytes]:
        paths = (p for p in self.folder.rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in paths}


def write_file(name: str, text: str) -> Callable[[StepProject], object]:
    return lambda site: (site.folder / name).write_text(text)
