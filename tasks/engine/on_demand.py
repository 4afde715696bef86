"""Tasks that know whether they were named on the command line.

doit parses options only for tasks that are named there; that is the sign used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from doit.task import Task

from tasks.causes import Cause, NamedOnCommandLine
from tasks.records import Request


class RequestedTask(Task):  # type: ignore[misc]
    """A task whose function is told how it was called."""

    named = False

    def init_options(self, args: Any = None) -> Any:
        if args is not None and self.options is None:
            self.named = True
        return super().init_options(args)

    def request(self) -> Request:
        """The call of the task: if it was named, and its options."""
        return Request(self.named, dict(self.options or {}))


class OnDemandTask(RequestedTask):
    """A task that looks outside: up to date for those that depend on it, run when it is named."""


class UnlessNamed:
    """The up-to-date check of an OnDemandTask."""

    def __call__(self, task: OnDemandTask, values: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return not task.named

    def cause(self, values: Mapping[str, Any]) -> Cause:  # noqa: ARG002 - as of all checks
        """It was named."""
        return NamedOnCommandLine()


class WhenNamed:
    """A check that only counts for a task that was named."""

    def __init__(self, holds: Callable[[], bool], cause: Callable[[], Cause]) -> None:
        self.holds, self._cause = holds, cause

    def __call__(self, task: RequestedTask, values: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return not task.named or self.holds()

    def cause(self, values: Mapping[str, Any]) -> Cause:  # noqa: ARG002 - as of all checks
        """The cause, where it does not hold."""
        return self._cause()


class UnlessRequested:
    """The check of a task with a flag that makes it run again."""

    def __init__(self, option: str) -> None:
        self._option = option

    def __call__(self, task: Task, values: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return not (task.options or {}).get(self._option)

    def cause(self, values: Mapping[str, Any]) -> Cause:  # noqa: ARG002 - as of all checks
        """The flag was given."""
        return NamedOnCommandLine()
