"""A step: one artifact, its task, its record.

The record (state/records/TASK.json) is small and deterministic, and the only target that doit
sees; it names the big results. It is moved aside while the action runs and written when the action
has succeeded, so a killed task never counts as done; after a failure the earlier record is back,
since what it names is still there. Other tasks depend on the record: an input that changes and
leaves the same record stops the rebuild there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from doit.exceptions import TaskFailed
from doit.task import Task

from tasks import records
from tasks.causes import Cause
from tasks.engine.checks import Check, ResultsExist, SettingsUnchanged, plain
from tasks.engine.on_demand import OnDemandTask, RequestedTask, UnlessNamed, WhenNamed
from tasks.layout import Layout
from tasks.records import Inputs, Key

R = TypeVar("R")
# The output of actions goes to the terminal at once; doit gathers nothing in memory.
_STREAMED: dict[str, Any] = {"io": {"capture": False}, "verbosity": 2}


@dataclass(frozen=True)
class Option:
    """An option for one run of a task: `doit TASK --long VALUE`, called `name` in its request.

    A `flag` takes no value; its request has True or False.
    """

    name: str
    long: str
    help: str
    flag: bool = False

    def param(self) -> dict[str, Any]:
        """The option as doit takes it."""
        kind = {"type": bool, "default": False} if self.flag else {"default": ""}
        return {"name": self.name, "long": self.long, "help": self.help, **kind}


@dataclass(frozen=True)
class Step(Generic[R]):
    """One artifact: `make` gets its inputs and returns its record.

    `reads` are the keys of the records that it reads, `files` further files, `settings` the part of
    config.toml that it reads (plain data). It may also read the records in `may_read`: its `reads`
    came from them, and their content does not change the result, so they are no dependencies.
    `files_cause` gives the cause where `files` have changed, None if it is not known.
    `results` gives the paths that a record vouches for, `owned` those that it alone has, where
    these are others. `checks` must hold as well, and with `when_named` another one for a task that
    was named. Tasks in `after` run before it, if it runs. `progress` gives, by its log, a line for
    each thing that it works on, and at last a few words about the whole.
    `remains` are further paths that its runs leave, and that no record names.
    """

    key: Key[R]
    doc: str
    make: Callable[[Inputs], R]
    reads: tuple[Key[Any], ...] = ()
    may_read: tuple[Key[Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    files_cause: Callable[[], Cause | None] | None = None
    results: Callable[[R], Iterable[Path]] = lambda _record: ()
    checks: tuple[Check, ...] = ()
    after: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    progress: Callable[[Path], Sequence[str]] | None = None
    when_named: WhenNamed | None = None
    owned: Callable[[R], Iterable[Path]] | None = None
    on_demand: bool = False
    target: Path | None = None  # of an on-demand task whose record is a file of its own
    remains: tuple[Path, ...] = ()
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

    def progress(self) -> Sequence[str]:
        """Its progress: lines, of which the last one is about the whole; none if unknown."""
        with contextlib.suppress(OSError, ValueError):
            return self.step.progress(self.log) if self.step.progress else ()
        return ()


def step_of(task: Task) -> Running | None:
    """The step that a task carries out; None for a group."""
    running = (task.meta or {}).get("step")
    return running if isinstance(running, Running) else None


def as_task(step: Step[Any], layout: Layout) -> Task:
    """The doit task of a step."""
    record = layout.record(step.task)
    common: dict[str, Any] = {
        "doc": step.doc,
        "meta": {"step": Running(layout, step)},
        **_STREAMED,
    }
    actions = [(_run, [layout, step])]
    params = [option.param() for option in step.options]
    if step.on_demand:
        return OnDemandTask(
            step.task,
            actions,
            targets=[str(step.target or record)],
            uptodate=[UnlessNamed(), *step.checks],
            setup=list(step.after),
            params=params,
            **common,
        )
    checks: list[Any] = [
        SettingsUnchanged(plain(step.settings)),
        ResultsExist(record, step.results_in),
        *step.checks,
        *((step.when_named,) if step.when_named else ()),
    ]
    kind = RequestedTask if step.when_named or step.options else Task
    task = kind(
        step.task,
        actions,
        targets=[str(record)],
        file_dep=[*(str(layout.record(key.task)) for key in step.reads), *map(str, step.files)],
        uptodate=checks,
        setup=list(step.after),
        params=params,
        **common,
    )
    if step.key.name:
        task.subtask_of = step.key.kind.name
    return task


def _run(layout: Layout, step: Step[Any], task: Task) -> TaskFailed | dict[str, str]:
    """Run a step; doit passes `task` by its name. What only a run needs is imported now."""
    from tasks.engine import action

    return action.run_step(layout, step, task)
