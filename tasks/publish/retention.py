"""The generations of a binhost: which to delete, where a rollback goes, and how to list them.

Numbers and TIMESTAMPs only grow: a client never reads an index that is older than the one before,
not even after a rollback.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tasks import clock
from tasks.errors import BinmillError
from tasks.publish import generation
from tasks.publish.generation import Generation
from tasks.system.files import remove_tree

_DAY = 86400


def expendable(
    generations: Sequence[Generation],
    pinned: Collection[int],
    *,
    keep: int,
    keep_days: int,
    now: float,
) -> list[int]:
    """The numbers of the generations that may be deleted, oldest first.

    Four kinds stay: those with a name, those that are `pinned`, the newest `keep`, and those that
    were the newest at any time in the last `keep_days`, since a client may have their index.
    """
    ordered = sorted((each for each in generations if not each.candidate), key=lambda g: g.number)
    numbers = []
    for place, each in enumerate(ordered[:-keep]):
        replaced = ordered[place + 1].issue.timestamp
        expired = keep_days == 0 or now - replaced >= keep_days * _DAY
        if expired and not each.names and each.number not in pinned:
            numbers.append(each.number)
    return numbers


def rollback_target(generations: Sequence[Generation], current: int | None, target: str) -> int:
    """The number that a rollback goes back to: `target` if given, else the one before `current`.

    If `current` is a rollback itself, the one before is counted from the generation whose packages
    it has. Raises BinmillError if there is none.
    """
    by_number = {each.number: each for each in generations if not each.candidate}
    choices = [str(number) for number in sorted(by_number)] or ["none"]
    if target:
        if not target.isdecimal() or int(target) not in by_number:
            raise BinmillError("rollback-target-unknown", target=target, generations=choices)
        if int(target) == current:
            raise BinmillError("rollback-target-current", target=target, generations=choices)
        return int(target)
    if current is None or current not in by_number:
        raise BinmillError("rollback-nothing-published")
    rollback = by_number[current].issue.rollback
    start = rollback.number if rollback else current
    earlier = [number for number in by_number if number < start]
    # the packages of a rollback are also there under their first number
    earlier = [number for number in earlier if by_number[number].issue.rollback is None] or earlier
    if not earlier:
        raise BinmillError("rollback-nothing-earlier", generation=start, generations=choices)
    return max(earlier)


def prune(
    binhost: Path, pinned: Collection[int], *, keep: int, keep_days: int, trash: Path
) -> list[int]:
    """Delete the generations that are not needed (`expendable`); returns their numbers.

    A download in progress has its file open, and continues.
    """
    every = generation.load_all(binhost)
    numbers = expendable(every, pinned, keep=keep, keep_days=keep_days, now=clock.now())
    for number in numbers:
        remove_tree(binhost / "gen" / str(number), trash)
    return numbers


def as_json(name: str, generations: Sequence[Generation]) -> list[dict[str, Any]]:
    """Plain data for programs: a dict for each generation, oldest first."""
    return [
        {
            "binhost": name,
            "number": each.number,
            "timestamp": each.issue.timestamp,
            "set": each.source.set,
            "packages": each.issue.packages,
            "names": list(each.names),
            "rollback": each.issue.rollback.number if each.issue.rollback else None,
            "candidate": each.candidate,
        }
        for each in generations
    ]


def text(name: str, generations: Sequence[Generation]) -> str:
    """A table for people: a line for each generation, oldest first."""
    lines = [name]
    for each in generations:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(each.issue.timestamp))
        packages, set_id = f"{each.issue.packages:>5} packages", each.source.set[:12]
        remarks = ", ".join(_remarks(each))
        lines.append(f"  {each.number:>4}  {when}  {packages}  set {set_id}  {remarks}".rstrip())
    return "\n".join(lines)


def _remarks(each: Generation) -> list[str]:
    remarks = list(each.names)
    if each.issue.rollback:
        hold = ", held" if "current" in each.names else ""
        remarks.append(f"rollback to {each.issue.rollback.number}{hold}")
    if each.candidate:
        remarks.append("candidate, not published")
    return remarks
