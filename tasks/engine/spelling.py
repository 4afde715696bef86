"""A task that does not exist, said in one line, with the one that was perhaps meant."""

from __future__ import annotations

from collections.abc import Iterable
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
            said = str(wrong)
            named = wrong.not_found or next(
                (a for a in args if said == f"'{a}' is not a task."), None
            )
            if named is None:
                raise
            raise InvalidCommand(no_task(named, self.known())) from None
        return code

    def known(self) -> list[str]:
        """What could have been meant."""
        return [task.name for task in self.task_list]


def no_task(name: str, known: Iterable[str]) -> str:
    """What is said of a task that is not among the known ones."""
    import difflib  # `doit list` must not pay for it

    near = difflib.get_close_matches(name, list(known), n=1)
    meant = f"is {near[0]} meant? " if near else ""
    return f"there is no task {name!r}; {meant}`doit list --all` has them all"
