"""Up-to-date checks of a task, beyond the records and files that it reads.

Each is a callable as doit wants it, and gives the cause where it does not hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from doit.task import Task
from doit.tools import config_changed

from tasks.causes import Cause, FilesChanged, ResultMissing, SettingsChanged
from tasks.engine.settings import changes, masked


class Check(Protocol):
    """An up-to-date check; `values` is what doit remembers of the task's last run."""

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool: ...

    def cause(self, values: Mapping[str, Any]) -> Cause:
        """The cause, where the check does not hold."""
        ...


class SettingsUnchanged(config_changed):  # type: ignore[misc]
    """The settings that a task reads are the same; the last ones are kept, to tell what changed.

    They are kept without passwords; the digest of the whole decides whether anything changed.
    """

    def configure_task(self, task: Task) -> None:
        super().configure_task(task)
        task.value_savers.append(lambda: {"inputs": masked(self.config)})

    def cause(self, values: Mapping[str, Any]) -> Cause:
        """The settings that changed since `values` were kept."""
        old = values.get("inputs")
        if not isinstance(old, dict):
            return SettingsChanged()
        return SettingsChanged(tuple(changes(old, masked(self.config))))


class Fact:
    """Something that must hold; `cause` says what it means that it does not."""

    def __init__(self, holds: Callable[[], bool], cause: Callable[[], Cause]) -> None:
        self.holds, self._cause = holds, cause

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:  # noqa: ARG002 - doit's
        return self.holds()

    def cause(self, values: Mapping[str, Any]) -> Cause:  # noqa: ARG002 - as of all checks
        """The cause, where it does not hold."""
        return self._cause()


class ResultsExist:
    """The record is the one that the task wrote, and everything that it names is there."""

    def __init__(self, record: Path, results: Callable[[bytes], Iterable[Path]]) -> None:
        self._record, self._results = record, results

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:  # noqa: ARG002 - doit's
        try:
            raw = self._record.read_bytes()
            if values.get("record") != hashlib.sha256(raw).hexdigest():
                return False  # not the one that the task wrote: damaged, or edited by hand
            return all(_there(path) for path in self._results(raw))
        except (OSError, ValueError):
            return False

    def cause(self, values: Mapping[str, Any]) -> Cause:  # noqa: ARG002 - as of all checks
        """Something is missing or damaged."""
        return ResultMissing()


class FilesUnchanged:
    """The files below some folders are the same."""

    def __init__(self, *folders: Path, cause: Cause | None = None) -> None:
        self._folders, self._cause = folders, cause

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:
        digest = " ".join(map(_digest, self._folders))
        task.value_savers.append(lambda: {"below": digest})
        return bool(values.get("below") == digest)

    def cause(self, values: Mapping[str, Any]) -> Cause:  # noqa: ARG002 - as of all checks
        """Files changed, or what that means."""
        return self._cause or FilesChanged([f"files below {each}" for each in self._folders])


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):  # a file that cannot be read counts by its name
            if path.is_file():
                total.update(os.fsencode(path.relative_to(folder)) + b"\0")
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _there(path: Path) -> bool:
    """True if a path exists, or if only root could tell."""
    try:
        return path.exists()
    except PermissionError:
        return True


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain data, in one order."""
    data: dict[str, Any] = json.loads(json.dumps(dict(settings), sort_keys=True))
    return data
