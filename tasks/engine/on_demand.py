"""Tasks that know whether somebody named them on the command line.

doit parses options only for tasks that are named there; that is the sign used here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from doit.task import Task


class Named(Task):  # type: ignore[misc]
    """A task that knows whether it was named; `asked` says so."""

    asked = False

    def init_options(self, args: Any = None) -> Any:
        if args is not None and self.options is None:
            self.asked = True
        return super().init_options(args)

    def words(self) -> dict[str, Any]:
        """What the step's function is told: whether it was named, and its options."""
        return {"asked": self.asked, **(self.options or {})}


class Asked(Named):
    """A task that looks outside: up to date for those who depend on it, run when it is named."""


def unless_asked(task: Asked, values: Mapping[str, Any]) -> bool:  # noqa: ARG001 - doit's names
    """Up-to-date check of an Asked task."""
    return not task.asked


class WhenNamed:
    """Something that must hold if the task was named (an up-to-date check of a Named task)."""

    def __init__(self, check: Callable[[], bool], cause: str) -> None:
        self.check, self.cause = check, cause

    def __call__(self, task: Named, values: Mapping[str, Any]) -> bool:  # noqa: ARG002 - doit's
        return not task.asked or self.check()

    def __repr__(self) -> str:
        return f"not the case: {self.cause}"
