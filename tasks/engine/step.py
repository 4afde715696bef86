"""A step: one artifact, its task, its record.

The record (state/records/TASK.json) is small and deterministic, and the only target that doit
sees; it names the big results. It is moved aside while the action runs and written when the action
has succeeded, so a killed task never counts as done; after a failure the earlier record is back,
since what it names is still there. Other tasks depend on the record: an input that changes and
leaves the same record stops the rebuild there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from doit.exceptions import TaskFailed
from doit.task import Task

from tasks import journal, records
from tasks.engine.checks import Check, ResultsExist, SettingsUnchanged, plain
from tasks.engine.on_demand import OnDemandTask, RequestedTask, UnlessNamed, WhenNamed
from tasks.errors import BinmillError
from tasks.layout import Layout
from tasks.records import Inputs, Key, Request
from tasks.system.disk_space import explain_full_disk
from tasks.system.disk_usage import record_sizes
from tasks.system.files import locked
from tasks.system.notes import listening

R = TypeVar("R")
# The output of actions goes to the terminal at once; doit gathers nothing in memory.
_STREAMED: dict[str, Any] = {"io": {"capture": False}, "verbosity": 2}


@dataclass(frozen=True)
class Option:
    """An option for one run of a task: `doit TASK --long VALUE`, called `name` in its request."""

    name: str
    long: str
    help: str


@dataclass(frozen=True)
class Step(Generic[R]):
    """One artifact: `make` gets its inputs and returns its record.

    `reads` are the keys of the records that it reads, `files` further files, `settings` the part of
    config.toml that it reads (plain data). It may also read the records in `may_read`: its `reads`
    came from them, and their content does not change the result, so they are no dependencies.
    `results` gives the paths that a record vouches for, `owned` those that it alone has, where
    these are others. `checks` must hold as well, and with `when_named` another one for a task that
    was named. Tasks in `after` run before it, if it runs.
    """

    key: Key[R]
    doc: str
    make: Callable[[Inputs], R]
    reads: tuple[Key[Any], ...] = ()
    may_read: tuple[Key[Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    results: Callable[[R], Iterable[Path]] = lambda _record: ()
    checks: tuple[Check, ...] = ()
    after: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    progress: Callable[[Path], str] | None = None  # a few words about how far its log is
    when_named: WhenNamed | None = None
    owned: Callable[[R], Iterable[Path]] | None = None
    target: Path | None = None  # of an on-demand task whose record is a file of its own
    chroot: str = ""  # the chroot that it belongs to

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.key.task

    def results_in(self, raw: bytes) -> list[Path]:
        """The paths that a record's text vouches for; raises ValueError for a damaged one."""
        return list(self.results(records.parse(self.key, raw)))

    def owned_in(self, raw: bytes) -> list[Path]:
        """The paths that this artifact alone has, by a record's text; raises ValueError."""
        return list((self.owned or self.results)(records.parse(self.key, raw)))


@dataclass(frozen=True)
class Running:
    """A step of a site as the reporter and the commands see it, by the task's `meta`."""

    layout: Layout
    step: Step[Any]

    @property
    def log(self) -> Path:
        """Its log in this run."""
        return self.layout.log(self.step.task)

    def __reduce__(self) -> Any:
        return dict, ()  # `doit -n` sends tasks to its workers, which do without this

    def progress(self) -> str:
        """Its progress in a few words; "" if unknown."""
        with contextlib.suppress(OSError, ValueError):
            return self.step.progress(self.log) if self.step.progress else ""
        return ""


def step_of(task: Task) -> Running | None:
    """The step that a task carries out; None for a group."""
    running = (task.meta or {}).get("step")
    return running if isinstance(running, Running) else None


def as_task(step: Step[Any], layout: Layout) -> Task:
    """The doit task of a step: on demand where it has a target of its own or options."""
    record = layout.record(step.task)
    common: dict[str, Any] = {
        "doc": step.doc,
        "meta": {"step": Running(layout, step)},
        **_STREAMED,
    }
    actions = [(run_step, [layout, step])]
    if step.options:
        return OnDemandTask(
            step.task,
            actions,
            targets=[str(step.target or record)],
            uptodate=[UnlessNamed(), *step.checks],
            setup=list(step.after),
            params=[{"default": "", **vars(option)} for option in step.options],
            **common,
        )
    checks: list[Any] = [
        SettingsUnchanged(plain(step.settings)),
        ResultsExist(record, step.results_in),
        *step.checks,
        *((step.when_named,) if step.when_named else ()),
    ]
    kind = RequestedTask if step.when_named else Task
    task = kind(
        step.task,
        actions,
        targets=[str(record)],
        file_dep=[*(str(layout.record(key.task)) for key in step.reads), *map(str, step.files)],
        uptodate=checks,
        **common,
    )
    if step.key.name:
        task.subtask_of = step.key.kind.name
    return task


def run_step(layout: Layout, step: Step[Any], task: Task) -> TaskFailed | dict[str, str]:
    """Run a step's action under its lock and write its record; a known error fails in one line.

    `task` is doit's own, passed by its name. doit remembers the digest of the record. A step with a
    target of its own (config.lock) has its record there: with two targets, a kill between them
    would leave one for good.
    """
    request = task.request() if isinstance(task, RequestedTask) else Request()
    inputs = Inputs(
        layout, frozenset((*step.reads, *step.may_read)), frozenset(step.files), request
    )
    start = time.monotonic()
    outcome: journal.Outcome = "bug"
    error = None
    try:
        error = failure(lambda: _make(layout, step, inputs), step.task)
        outcome = "failed" if error else "done"
    except (SystemExit, KeyboardInterrupt):
        outcome = "interrupted"
        raise
    finally:
        journal.end(layout, step.task, outcome, time.monotonic() - start, error)
    if error is not None:
        return TaskFailed(describe(error))
    record = step.target or layout.record(step.task)
    return {"record": hashlib.sha256(record.read_bytes()).hexdigest()}


def _make(layout: Layout, step: Step[Any], inputs: Inputs) -> None:
    record = layout.record(step.task)
    earlier = records.earlier(layout, step.task)
    journal.start(layout, step.task)
    with (
        locked(layout.task_lock(step.task), step.task),
        listening(lambda note: journal.add_note(layout, step.task, note)),
    ):
        if record.exists():
            record.replace(earlier)
        try:
            with explain_full_disk(layout.state):
                content = step.make(inputs)
            if step.target is None:
                records.save(layout, step.key, content)
        except BaseException:
            if earlier.exists():
                earlier.replace(record)
            raise
        earlier.unlink(missing_ok=True)
        record_sizes(layout.sizes, layout.large_trees())


def failure(action: Callable[[], object], subject: str) -> BinmillError | None:
    """Run an action; returns the error that a person can act on. A bug keeps its traceback."""
    try:
        action()
    except BinmillError as error:
        return error
    except PermissionError as error:
        code = "permission-denied" if os.geteuid() == 0 else "permission-denied-user"
        return BinmillError(code, subject=subject, path=str(error.filename))
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        where = f": {error.filename}" if error.filename is not None else ""
        return BinmillError("system-error", subject=subject, reason=reason, where=where)
    return None


def describe(error: BinmillError) -> str:
    """An error as the terminal shows it: its sentence with its code, then what to do next."""
    first, newline, rest = error.message.partition("\n")
    hint = f"\n  next: {error.hint}" if error.hint else ""
    return f"{first} [{error.code}]{newline}{rest}{hint}"
