"""Hooks: programs of the site in hooks/ beside config.toml, each with the name of its event.

A hook runs on the host, outside of any chroot, as the user who runs doit, with that user's
environment, in the folder of config.toml. It gets the event as JSON on standard input, and may take
ten minutes. Its failure is a note, and changes nothing else (docs/operate.md).
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

from tasks import clock
from tasks.errors import BinmillError, failure
from tasks.layout import Layout
from tasks.site import Chroot
from tasks.system import cancel, command
from tasks.system.notes import note
from tasks.text import json_data

EVENTS = ("package-built", "package-failed", "set-complete", "published")
_SECONDS = 600.0
_TIMEOUTS = ("program-timeout", "program-timeout-logged")


def warn(layout: Layout) -> None:
    """Name files in hooks/ that never run: of another name, or not executable."""
    import difflib

    files = layout.hooks.iterdir() if layout.hooks.is_dir() else ()
    for path in sorted(files):
        if path.name.startswith(".") or (path.is_dir() and path.name not in EVENTS):
            continue  # hidden, or a folder with what hooks use
        if path.name not in EVENTS:
            near = difflib.get_close_matches(path.name, EVENTS, n=1) or EVENTS
            note("hook-unknown", path=path, known=list(near))
        elif not _may_run(path):
            note("hook-not-executable", path=path)


def run(chroot: Chroot, task: str, event: str, data: Mapping[str, Any]) -> BinmillError | None:
    """Run the hook of an event, if there is one, to its end; returns its failure, and notes it.

    Its output goes to the log of the task (`Chroot.log`). That of a command, which has no log, is
    dropped.
    """
    hook, log = chroot.layout.hooks / event, chroot.log(task)
    if not _may_run(hook):
        return None
    facts = {"event": event, "time": int(clock.now()), "chroot": chroot.name}
    start = partial(
        command.run,
        hook,
        cwd=chroot.layout.site,
        input=json.dumps({**facts, **json_data(data)}).encode(),
        timeout=_SECONDS,
        log=log if log.parent.is_dir() else None,
        family=True,
    )
    error = failure(start, event)
    if error is not None:
        note("hook-failed", hook=event, cause=error.message)
    return error


@contextmanager
def in_background(chroot: Chroot, task: str) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Run hooks beside the work of the block, which submits their events.

    Hooks of the same event run one at a time, in order. The end of the block waits for all; if
    the block raises, running hooks are ended. One that exceeded its time does not run again.
    """
    from concurrent.futures import ThreadPoolExecutor

    scope, late = cancel.Scope(), set[str]()
    threads = defaultdict[str, ThreadPoolExecutor](lambda: ThreadPoolExecutor(max_workers=1))

    def work(event: str, data: Mapping[str, Any]) -> None:
        if event not in late:
            with cancel.working_in(scope):
                error = run(chroot, task, event, data)
            if error is not None and error.code in _TIMEOUTS:
                late.add(event)

    def submit(event: str, data: Mapping[str, Any]) -> None:
        if _may_run(chroot.layout.hooks / event):
            threads[event].submit(copy_context().run, work, event, data)

    try:
        yield submit
        for thread in threads.values():
            thread.shutdown()
    except BaseException:
        for thread in threads.values():
            thread.shutdown(wait=False, cancel_futures=True)
        scope.cancel()
        for thread in threads.values():
            thread.shutdown()
        raise


def _may_run(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
