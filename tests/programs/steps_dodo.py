"""The dodo.py of a StepProject: steps that note that they ran, and fail or wait as ordered.

It is copied into the project's folder. `do-NAME` there orders a step to fail, wait or misbehave;
`ran` lists the steps that ran.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tasks import site
from tasks.causes import FilesChanged, ResultMissing
from tasks.engine.checks import Fact, FilesUnchanged
from tasks.engine.signals import end_cleanly
from tasks.engine.step import Option, Step, as_task
from tasks.errors import NotTrusted
from tasks.records import Inputs, Kind

HERE = Path(__file__).parent
LAYOUT = site.find(HERE)
DOIT_CONFIG = {
    "backend": "binmill",
    "reporter": "binmill",
    "default_tasks": ["three"],
    "dep_file": str(LAYOUT.database),
    "verbosity": 2,
}
end_cleanly()


@dataclass(frozen=True)
class Word:
    """A record with a word."""

    word: str = ""


ONE, TWO, THREE = Kind("one", Word)(), Kind("two", Word)("x"), Kind("three", Word)()
LOOKS, LOCKS = Kind("looks", Word)(), Kind("locks", Word)()


def note(line: str) -> None:
    with (HERE / "ran").open("a") as log:
        log.write(f"{line}\n")


def obey(name: str) -> Word | None:
    """Follow the order of the test; returns a record if the order is to return one."""
    order = (HERE / f"do-{name}").read_text() if (HERE / f"do-{name}").exists() else ""
    if order == "fail":
        raise NotTrusted("stage-pointer-empty", stage=name)
    if order == "bug":
        raise ZeroDivisionError("oops")
    if order == "os":
        raise OSError(5, "Input/output error", "/some/file")
    if order == "full":  # as fallocate(2) fails, which has no name of the file
        raise OSError(28, "No space left on device")
    if order == "leave":
        raise SystemExit("tired")
    if order == "wait":
        os.write(1, b"waiting\n")
        while not (HERE / "go").exists():
            time.sleep(0.05)
    return Word(cast(Any, object())) if order == "odd" else None


def one(_: Inputs) -> Word:
    note("one")
    obey("one")
    words = (HERE / "input").read_text().split()
    (HERE / "result").write_text("big")
    return Word(words[0])


def two(inputs: Inputs) -> Word:
    note("two")
    return obey("two") or inputs[ONE]


def three(inputs: Inputs) -> Word:
    note("three")
    return obey("three") or Word(f"after {inputs[TWO].word}")


def looks(inputs: Inputs) -> Word:
    note("looks named" if inputs.request.named else "looks needed")
    return obey("looks") or Word()


def locks(inputs: Inputs) -> Word:
    note("locks named" if inputs.request.named else "locks needed")
    obey("locks")
    (HERE / "lock").write_text("x")
    return Word()


def task_all() -> Iterator[Any]:
    lock = Fact((HERE / "lock").exists, ResultMissing)
    below = FilesUnchanged(HERE / "below", cause=FilesChanged(["files below"]))
    option = (Option("day", "day", "the day"),)
    steps = [
        Step(ONE, "the first", one, files=(HERE / "input",), results=lambda _: [HERE / "result"]),
        Step(TWO, "the second", two, reads=(ONE,), checks=(below,)),
        Step(
            THREE,
            "the third",
            three,
            reads=(TWO,),
            settings={"setting": (HERE / "setting").read_text()},
        ),
        Step(LOOKS, "looks outside", looks, options=option, on_demand=True),
        Step(
            LOCKS,
            "locks",
            locks,
            checks=(lock,),
            after=(LOOKS.task,),
            options=option,
            on_demand=True,
            target=HERE / "lock",
        ),
    ]
    for step in steps:
        yield as_task(step, LAYOUT)
