"""Events of a build: notes for people, files for programs (docs/builds.md), and hooks.

LOG.events     beside the log of binpkgs:NAME: what happened, a JSON object per line
LOG.progress   the state of the moment, one JSON object; only while packages are built
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import clock
from tasks.flow import hooks
from tasks.site import Chroot
from tasks.system.notes import note
from tasks.text import json_data

if TYPE_CHECKING:
    from tasks.builder.events import Event

_TASK = "binpkgs"


@contextlib.contextmanager
def listener(chroot: Chroot) -> Iterator[Callable[[Event], None]]:
    """Yield a function that passes on the events of a chroot's build.

    The build continues if the files cannot be written.
    """
    from tasks.builder import events

    log = chroot.log(_TASK)
    log.parent.mkdir(parents=True, exist_ok=True)
    state = log.with_suffix(".progress")

    def listen(event: Event) -> None:
        now = {"event": event.event, "time": int(clock.now())}
        data = json_data({**now, **events.plain(event)})
        with contextlib.suppress(OSError):
            if isinstance(event, events.BuildProgress):
                _replace(state, data)
            else:
                _append(log.with_suffix(".events"), data)
        _note(event)
        final = not (isinstance(event, events.PackageFailed) and event.again)
        if event.event in hooks.EVENTS and final:
            submit(event.event, data)

    with hooks.in_background(chroot, _TASK) as submit:
        try:
            yield listen
        finally:
            state.unlink(missing_ok=True)


def progress(log: Path) -> list[str]:
    """The progress of the build with that log: a line for each buildroot, and one in total.

    Raises OSError if it builds no packages now.
    """
    from tasks.builder import events

    data = json.loads(log.with_suffix(".progress").read_text(encoding="utf-8"))
    return events.lines(events.parse_progress(data))


def _append(path: Path, data: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(data) + "\n")


def _replace(path: Path, data: Mapping[str, Any]) -> None:
    scratch = path.with_suffix(".progress.tmp")
    scratch.write_text(json.dumps(data) + "\n", encoding="utf-8")
    scratch.replace(path)


def _note(event: Event) -> None:
    from tasks.builder import events

    match event:
        case events.PackageBuilt(package=package, seconds=seconds, unchanged=unchanged):
            code = "package-was-built-unchanged" if unchanged else "package-was-built"
            note(code, package=package, seconds=seconds)
        case events.PackageReused(package=package, because=because) if because:
            note("package-cut-off", package=package, because=list(because))
        case events.PackageFailed(package=package, again=True):
            note("package-will-retry", package=package)
        case events.PackageFailed(package=package, failure=failure):
            note("package-has-failed", package=package, cause=next(iter(failure.lines), ""))
        case _:
            pass
