"""The dodo.py of a StepProject: steps that note that they ran, and fail or wait as ordered.

It is copied into the project's folder. `do-NAME` there orders a step to fail, wait or misbehave;
`ran` lists the steps that ran.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks import records
from tasks.engine.signals import end_cleanly
from tasks.engine.step import Below, Fact, Step, interactive
from tasks.errors import NotTrusted
from tasks.layout import Layout
from tasks.records import Record

HERE = Path(__file__).parent
LAYOUT = Layout(HERE, HERE / "state")
DOIT_CONFIG = {
    "backend": "binmill",
    "reporter": "binmill",
    "default_tasks": ["three"],
    "dep_file": str(LAYOUT.database),
    "verbosity": 2,
}
end_cleanly()


def note(line: str) -> None:
    with (HERE / "ran").open("a") as log:
        log.write(f"{line}\n")


def obey(name: str, *, asked: bool | None = None) -> Record | None:
    """Note that a step ran, and do as ordered."""
    note(name if asked is None else f"{name} {'asked' if asked else 'needed'}")
    order = (HERE / f"do-{name}").read_text() if (HERE / f"do-{name}").exists() else ""
    if order == "fail":
        raise NotTrusted(f"{name} is not to be trusted", "try another")
    if order == "bug":
        raise ZeroDivisionError("oops")
    if order == "os":
        raise OSError(28, "No space left on device", "/some/file")
    if order == "wait":
        os.write(1, b"waiting\n")
        while not (HERE / "go").exists():
            time.sleep(0.05)
    if order == "odd":
        return {"bad": object()}
    return None


def one() -> Record:
    obey("one")
    words = (HERE / "input").read_text().split()
    (HERE / "result").write_text("big")
    return {"first": words[0]}


def two() -> Record:
    return obey("two") or {"two": records.read(LAYOUT, "one")["first"]}


def three() -> Record:
    return obey("three") or {}


def looks(*, asked: bool) -> Record:
    return obey("looks", asked=asked) or {}


def locks(*, asked: bool) -> Record:
    obey("locks", asked=asked)
    (HERE / "lock").write_text("x")
    return {}


def talk(words: list[str]) -> int:
    obey("talk")
    print("words:", words)
    return 7 if words[:1] == ["seven"] else 0


def task_all() -> Iterator[dict[str, Any]]:
    lock = Fact((HERE / "lock").exists, "the lock is gone")
    below = Below(HERE / "below")
    inputs = {"setting": (HERE / "setting").read_text()}
    steps = [
        Step("one", "the first", one, files=(HERE / "input",), results=lambda _: [HERE / "result"]),
        Step("two:x", "the second", two, needs=("one",), fresh=(below,)),
        Step("three", "the third", three, needs=("two:x",), inputs=inputs),
    ]
    for step in steps:
        yield step.as_task(LAYOUT)
    yield Step("looks", "looks outside", looks).as_asked_task(LAYOUT, LAYOUT.record("looks"))
    locking = Step("locks", "locks", locks, fresh=(lock,), after=("looks",))
    yield locking.as_asked_task(LAYOUT, HERE / "lock")
    yield {"basename": "talk", "pos_arg": "words", **interactive(talk, "talk")}
