"""The action of a step: its run under a lock, its record, and the error that ends it."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from doit.exceptions import TaskFailed
from doit.task import Task

from tasks import journal, records
from tasks.engine.on_demand import RequestedTask
from tasks.engine.step import Step
from tasks.errors import describe, failure
from tasks.layout import Layout
from tasks.records import Inputs, Request
from tasks.system.disk_space import explain_full_disk
from tasks.system.disk_usage import record_sizes
from tasks.system.files import locked
from tasks.system.notes import listening


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
