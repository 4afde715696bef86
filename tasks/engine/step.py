"""A step: one artifact, its task, its record.

The record (state/records/TASK.json) is what a finished task leaves: small, deterministic, the
only target doit sees; big results are named in it. It is put aside while the action runs and
written when it has ended well, so a killed task is never taken for done; after a failure the
earlier record is back, since what it names is still there. Others depend on the record: an
input that changes and produces the same record stops the rebuild there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from doit.exceptions import TaskFailed
from doit.task import Task
from doit.tools import config_changed

from tasks import records
from tasks.engine import runs
from tasks.engine.difference import difference, masked
from tasks.engine.on_demand import Asked, Named, WhenNamed, unless_asked
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.records import Record
from tasks.system.disk_space import room_told
from tasks.system.files import locked

# What actions say goes to the person at once; nothing is gathered in memory.
_SPOKEN: dict[str, Any] = {"io": {"capture": False}, "verbosity": 2}
# Tasks for a person at a terminal, of which the reporter says nothing.
ATTENDED = {"attended": True}


@dataclass(frozen=True)
class Option:
    """A word for one run, of an asked task: `doit TASK --long WORD` is handed over as `name`."""

    name: str
    long: str
    help: str


@dataclass(frozen=True)
class Watch:
    """What a reporter may look at while a step is being made."""

    layout: Layout
    task: str
    progress: Callable[[Path], str] | None = None

    def far(self) -> str:
        """How far it is; "" when nobody knows."""
        with contextlib.suppress(OSError, ValueError):
            return self.progress(self.layout.log(self.task)) if self.progress else ""
        return ""

    def __repr__(self) -> str:
        return f"its log is {self.layout.log(self.task)}"


@dataclass(frozen=True)
class Step:
    """One artifact: `make` produces its record, `needs` are tasks whose records it reads.

    `inputs` is the part of the config it depends on (plain data), `files` further files,
    `results` gives the paths that a record vouches for, `fresh` further checks that must hold;
    with `when_named`, a check for those who name it, `make` is told whether it was named.
    """

    task: str
    doc: str
    make: Callable[..., Record]
    needs: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    results: Callable[[Record], Iterable[Path]] = lambda _record: ()
    fresh: tuple[Callable[..., bool], ...] = ()
    after: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    progress: Callable[[Path], str] | None = None  # how far its log says that it is, in a few words
    when_named: WhenNamed | None = None
    # those that are its alone, and what else is, where that is not just the results
    owned: Callable[[Record], Iterable[Path]] | None = None

    def as_task(self, layout: Layout) -> dict[str, Any]:
        """The doit task; `basename:name` for a step called "chroot:java"."""
        base, _, name = self.task.partition(":")
        record = layout.record(self.task)
        return {
            "basename": base,
            **({"name": name} if name else {}),
            "doc": self.doc,
            "actions": [(carry_out, [layout, self])],
            "targets": [str(record)],
            "file_dep": [*(str(layout.record(n)) for n in self.needs), *map(str, self.files)],
            "uptodate": [
                Inputs(json.loads(json.dumps(dict(self.inputs), sort_keys=True))),
                Present(record, self.results),
                *self.fresh,
            ],
            "meta": {"watch": Watch(layout, self.task, self.progress)},
            **_SPOKEN,
        }

    def as_named_task(self, layout: Layout) -> Named:
        """The task of a step with `when_named`; its group has to list it."""
        whole = self.as_task(layout)
        base, name = whole.pop("basename"), whole.pop("name")
        task = Named(f"{base}:{name}", uptodate=[*whole.pop("uptodate"), self.when_named], **whole)
        task.subtask_of = base
        return task

    def as_asked_task(self, layout: Layout, target: Path) -> Asked:
        """The task of a step that looks outside: see Asked. `make` is told whether it was named."""
        return Asked(
            self.task,
            [(carry_out, [layout, self])],
            doc=self.doc,
            targets=[str(target)],
            uptodate=[unless_asked, *self.fresh],
            setup=list(self.after),
            params=[{"default": "", **vars(option)} for option in self.options],
            meta={"watch": Watch(layout, self.task, self.progress)},
            **_SPOKEN,
        )


class Inputs(config_changed):  # type: ignore[misc]
    """Whether its part of the config is as it was; the last one is kept, to tell what changed.

    What is kept is without passwords; whether it changed is decided by the digest of the whole.
    """

    changed = "its part of config.toml changed"

    def configure_task(self, task: Task) -> None:
        super().configure_task(task)
        task.value_savers.append(lambda: {"inputs": masked(self.config)})

    def cause(self, values: Mapping[str, Any]) -> str:
        """What changed since `values` were kept (of an earlier release: nothing is known)."""
        old = values.get("inputs")
        told = difference(old, masked(self.config)) if isinstance(old, dict) else ""
        return told or self.changed


@dataclass(frozen=True)
class Fact:
    """Something that must hold (an up-to-date check); `cause` is what to say where it does not."""

    check: Callable[[], bool]
    cause: str

    def __call__(self) -> bool:
        return self.check()

    def __repr__(self) -> str:
        return f"not the case: {self.cause}"


class Present:
    """Whether everything that a record vouches for is still there (an up-to-date check)."""

    cause = "something that it made is missing or damaged"

    def __init__(self, record: Path, results: Callable[[Record], Iterable[Path]]) -> None:
        self.record, self.results = record, results

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:  # noqa: ARG002 - doit's
        try:
            text = self.record.read_bytes()
            if values.get("record") != hashlib.sha256(text).hexdigest():
                return False  # not what the task wrote: damaged, or edited by hand
            return all(_there(path) for path in self.results(json.loads(text)))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False

    def __repr__(self) -> str:
        return "what its record names is there"


def _there(path: Path) -> bool:
    """Whether something is there; what only root may look at counts as being there."""
    try:
        return path.exists()
    except PermissionError:
        return True


class Below:
    """Whether the files below a directory are as they were (an up-to-date check)."""

    def __init__(self, folder: Path, cause: str = "") -> None:
        self.folder = folder
        self.cause = cause or f"files below {folder} changed"

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:
        found = self._digest()
        task.value_savers.append(lambda: {"below": found})
        return bool(values.get("below") == found)

    def _digest(self) -> str:
        total = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            with contextlib.suppress(OSError):  # what cannot be read counts by its name
                if path.is_file():
                    total.update(os.fsencode(path.relative_to(self.folder)) + b"\0")
                    total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()

    def __repr__(self) -> str:
        return f"the files below {self.folder} are unchanged"


def carry_out(layout: Layout, step: Step, task: Task) -> TaskFailed | dict[str, str]:
    """Run a step's action under its lock and keep its record; a known error fails in one line.

    `task` is doit's own, handed in by its name. doit remembers the digest of the record. A step
    with another target (config.lock) has its record there: with two, a kill between them would
    leave one for good.
    """
    record = layout.record(step.task)
    aside = records.aside(layout, step.task)
    elsewhere = next((Path(t) for t in task.targets if t != str(record)), None)

    def attempt() -> None:
        runs.began(layout, step.task)
        with locked(layout.busy(step.task), step.task):
            if record.exists():
                record.replace(aside)
            try:
                with room_told(layout.state):
                    made = step.make(**(task.words() if isinstance(task, Named) else {}))
                if elsewhere is None:
                    records.write(layout, step.task, made)
            except BaseException:
                if aside.exists():
                    aside.replace(record)
                raise
            aside.unlink(missing_ok=True)

    start = time.monotonic()
    outcome = "bug"
    failed = None
    try:
        failed = told(attempt, step.task)
        outcome = "failed" if failed else "done"
    except (SystemExit, KeyboardInterrupt):
        outcome = "interrupted"
        raise
    finally:
        said = str(failed.message) if failed else ""
        runs.ended(layout, step.task, outcome, time.monotonic() - start, said)
    return failed or {"record": hashlib.sha256((elsewhere or record).read_bytes()).hexdigest()}


def told(action: Callable[[], None], what: str) -> TaskFailed | None:
    """Run an action; what a person can act on becomes one failed task, a bug stays a traceback."""
    try:
        action()
    except BinmillError as error:
        return TaskFailed(str(error))
    except PermissionError as error:
        need = "be root" if os.geteuid() else "check who may write there"
        return TaskFailed(
            f"{what}: Permission denied: {error.filename}\n"
            f"  next: {need}; README, 'What root means here'"
        )
    except OSError as error:
        where = f": {error.filename}" if error.filename is not None else ""
        return TaskFailed(
            f"{what}: {error.strerror or str(error) or type(error).__name__}{where}\n"
            "  next: check the disk (df -h, df -i) and permissions, then run it again"
        )
    return None


def interactive(action: Callable[[list[str]], int | None], doc: str) -> dict[str, Any]:
    """A task for a person at a terminal: always runs, and doit ends with the action's exit code."""

    def attend(task: Task, words: list[str] | None = None) -> TaskFailed | None:
        code: list[int | None] = []
        typed: list[str] = []
        # what doit took for an option of the task, since it stood before the first word
        for name, said in (task.options or {}).items():
            typed += [f"--{name}", *([said] if said is not True else [])] if said else []
        typed += as_typed(task.name, list(words or []), sys.argv)
        failed = told(lambda: code.append(action(typed)), task.name)
        if code and code[0]:
            raise SystemExit(code[0])
        return failed

    return {"doc": doc, "actions": [attend], "uptodate": [False], "meta": ATTENDED, **_SPOKEN}


def as_typed(task: str, words: list[str], argv: list[str]) -> list[str]:
    """The words after a task's name on the command line; doit takes those like A=b for itself."""
    after = argv[argv.index(task) + 1 :] if task in argv else []
    kept = [word for word in after if word.startswith("-") or "=" not in word]
    return after if kept == words else words
