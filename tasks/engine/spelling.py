"""The error for a task that does not exist, with a suggestion."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from doit.exceptions import InvalidCommand

from tasks import messages


class Spelling:
    """A mixin for doit's commands that take names of tasks; it comes before the command."""

    task_list: list[Any]

    def execute(self, params: Any, args: list[str]) -> int:
        """Run the command; raises InvalidCommand for a task that does not exist."""
        try:
            code: int = super().execute(params, args)  # type: ignore[misc]
        except InvalidCommand as wrong:
            message = str(wrong)
            name = wrong.not_found or next(
                (a for a in args if message == f"'{a}' is not a task."), None
            )
            if name is None:
                raise
            raise InvalidCommand(unknown_task(name, self.candidates())) from None
        return code

    def candidates(self) -> list[str]:
        """The names that a suggestion may have."""
        return [task.name for task in self.task_list]


def unknown_task(name: str, candidates: Iterable[str]) -> str:
    """The message for a task that does not exist, with the closest of the candidates."""
    import difflib  # `doit list` must not pay for it

    command, colon, chroot = name.partition(":")
    if colon and command in commands():
        return messages.sentence("command-not-task", {"command": command, "words": chroot}).rstrip()
    for close in difflib.get_close_matches(name, list(candidates), n=1):
        return messages.sentence("task-unknown-close", {"task": name, "close": close})
    return messages.sentence("task-unknown", {"task": name})


def commands() -> list[str]:
    """The names of this project's commands."""
    return [each.name for each in entry_points(group="doit.COMMAND")]
