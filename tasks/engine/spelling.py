"""A task that does not exist, reported in one line, with the one that was perhaps meant."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from doit.exceptions import InvalidCommand


class Spelling:
    """For doit's commands that take tasks: stands before them among the bases."""

    task_list: list[Any]

    def execute(self, params: Any, args: list[str]) -> int:
        """Carry the command out; raises InvalidCommand for a task that does not exist."""
        try:
            code: int = super().execute(params, args)  # type: ignore[misc]
        except InvalidCommand as wrong:
            message = str(wrong)
            name = wrong.not_found or next(
                (a for a in args if message == f"'{a}' is not a task."), None
            )
            if name is None:
                raise
            raise InvalidCommand(no_task(name, self.known())) from None
        return code

    def known(self) -> list[str]:
        """The names that could have been meant."""
        return [task.name for task in self.task_list]


def no_task(name: str, known: Iterable[str]) -> str:
    """The message about a task that does not exist; `known` are tasks, and commands for `run`."""
    import difflib  # `doit list` must not pay for it

    command, colon, chroot = name.partition(":")
    if colon and command in commands():
        return f"{command} is a command, not a task: doit {command} {chroot}".rstrip()
    close = difflib.get_close_matches(name, list(known), n=1)
    meant = f"is {close[0]} meant? " if close else ""
    return f"there is no task {name!r}; {meant}`doit list --all` has them all"


def commands() -> list[str]:
    """The names of this project's commands."""
    return [each.name for each in entry_points(group="doit.COMMAND")]
