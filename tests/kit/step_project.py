"""A small doit project of steps that do as a test orders."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.kit.project import PROJECT

DODO = """
import os, signal, sys, time
from pathlib import Path
from tasks.engine.signals import end_cleanly
from tasks.engine.step import Below, Fact, Step, interactive
from tasks.errors import BinmillError, NotTrusted
from tasks.layout import Layout
from tasks import records

HERE = Path(__file__).parent
LAYOUT = Layout(HERE, HERE / "state")
DOIT_CONFIG = {"backend": "binmill", "reporter": "binmill", "default_tasks": ["three"],
               "dep_file": str(LAYOUT.database), "verbosity": 2}
end_cleanly()

def did(name):
    with (HERE / "ran").open("a") as log:
        log.write(name + "\\n")

def make(name, *, asked=None):
    did(name if asked is None else f"{name} {'asked' if asked else 'needed'}")
    order = (HERE / f"do-{name}").read_text() if (HERE / f"do-{name}").exists() else ""
    if order == "fail":
        raise NotTrusted(f"{name} is not to be trusted", "try another")
    if order == "bug":
        raise ZeroDivisionError("oops")
    if order == "os":
        raise OSError(28, "No space left on device", "/some/file")
    if order == "wait":
        os.write(1, b"waiting\\n")
        while not (HERE / "go").exists():
            time.sleep(0.05)
    if order == "odd":
        return {"bad": object()}
    return None

def one():
    make("one")
    words = (HERE / "input").read_text().split()
    (HERE / "result").write_text("big")
    return {"first": words[0]}

def two():
    odd = make("two")
    return odd or {"two": records.read(LAYOUT, "one")["first"]}

def three():
    return make("three") or {}

def looks(*, asked):
    return make("looks", asked=asked) or {}

def locks(*, asked):
    make("locks", asked=asked)
    (HERE / "lock").write_text("x")
    return {}

def talk(words):
    make("talk")
    print("words:", words)
    return 7 if words[:1] == ["seven"] else 0

def task_all():
    fresh = Fact((HERE / "lock").exists, "the lock is gone")
    inputs = {"setting": (HERE / "setting").read_text()}
    steps = [
        Step("one", "the first", one, files=(HERE / "input",), results=lambda r: [HERE / "result"]),
        Step("two:x", "the second", two, needs=("one",), fresh=(Below(HERE / "below"),)),
        Step("three", "the third", three, needs=("two:x",), inputs=inputs),
    ]
    for step in steps:
        yield step.as_task(LAYOUT)
    yield Step("looks", "looks outside", looks).as_asked_task(LAYOUT, LAYOUT.record("looks"))
    yield Step("locks", "locks", locks, fresh=(fresh,), after=("looks",)).as_asked_task(
        LAYOUT, HERE / "lock")
    yield {"basename": "talk", "pos_arg": "words", **interactive(talk, "talk")}
"""


class StepProject:
    """A small project of its own, run by the doit of this interpreter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "dodo.py").write_text(DODO)
        (folder / "input").write_text("word and more")
        (folder / "setting").write_text("s")
        (folder / "below").mkdir()

    def start(self, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "doit", *words],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def doit(self, *words: str, code: int = 0, prefix: tuple[str, ...] = ()) -> str:
        with self.start(*words, prefix=prefix) as process:
            printed, _ = process.communicate(timeout=120)
        assert process.returncode == code, printed
        return printed

    def ran(self) -> list[str]:
        """What has run since the last time this was asked."""
        log = self.folder / "ran"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def order(self, step: str, what: str = "") -> None:
        (self.folder / f"do-{step}").write_text(what)

    def record(self, name: str) -> Path:
        return self.folder / "state" / "records" / f"{name}.json"

    def remembered(self) -> set[str]:
        with sqlite3.connect(self.folder / "state" / "doit.db") as database:
            rows = [row[0] for row in database.execute("select task_id from doit")]
        database.close()
        return set(rows)

    def state(self) -> dict[str, bytes]:
        paths = (p for p in self.folder.rglob("*") if p.is_file())
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in paths}


def write_file(name: str, text: str) -> Callable[[StepProject], object]:
    return lambda site: (site.folder / name).write_text(text)
