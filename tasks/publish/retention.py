"""The list of a binhost's generations, which of them may be deleted, and rollback targets. Pure.

Numbers and TIMESTAMPs only grow: a client never reads an index that is older than the one before,
not even after a rollback.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks.errors import BinmillError

_DAY = 86400


@dataclass(frozen=True)
class Generation:
    """A generation that was published, or a candidate for one. `timestamp` in epoch seconds.

    `names` says what points to it: `current`, `previous`, a channel. `rollback` is the number whose
    packages it has again, if it came from a rollback.
    """

    number: int
    timestamp: int
    set: str
    packages: int
    names: tuple[str, ...] = ()
    rollback: int | None = None
    candidate: bool = False


def expendable(
    kept: Sequence[Generation],
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
    ordered = sorted((each for each in kept if not each.candidate), key=lambda g: g.number)
    numbers = []
    for place, each in enumerate(ordered[:-keep]):
        replaced = ordered[place + 1].timestamp
        expired = keep_days == 0 or now - replaced >= keep_days * _DAY
        if expired and not each.names and each.number not in pinned:
            numbers.append(each.number)
    return numbers


def before(kept: Sequence[Generation], current: int | None, target: str) -> int:
    """The number that a rollback goes back to: `target` if given, else the one before `current`.

    If `current` is a rollback itself, the one before is counted from the generation whose packages
    it has. Raises BinmillError if there is none.
    """
    by_number = {each.number: each for each in kept if not each.candidate}
    listed = [str(number) for number in sorted(by_number)] or ["none"]
    if target:
        if not target.isdecimal() or int(target) not in by_number:
            raise BinmillError("rollback-target-unknown", target=target, generations=listed)
        if int(target) == current:
            raise BinmillError("rollback-target-current", target=target, generations=listed)
        return int(target)
    if current is None or current not in by_number:
        raise BinmillError("rollback-nothing-published")
    start = by_number[current].rollback or current
    earlier = [number for number in by_number if number < start]
    # the packages of a rollback are also there under their first number
    earlier = [number for number in earlier if by_number[number].rollback is None] or earlier
    if not earlier:
        raise BinmillError("rollback-nothing-earlier", generation=start, generations=listed)
    return max(earlier)


def as_json(name: str, generations: Sequence[Generation]) -> list[dict[str, Any]]:
    """Plain data for programs: a dict for each generation, oldest first."""
    return [{"binhost": name, **asdict(each), "names": list(each.names)} for each in generations]


def text(name: str, generations: Sequence[Generation]) -> str:
    """A table for people: a line for each generation, oldest first."""
    lines = [name]
    for each in generations:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(each.timestamp))
        lines.append(
            f"  {each.number:>4}  {when}  {each.packages:>5} packages  set {each.set[:12]}  "
            + ", ".join(_remarks(each))
        )
    return "\n".join(line.rstrip() for line in lines)


def _remarks(each: Generation) -> list[str]:
    remarks = list(each.names)
    if each.rollback is not None:
        held = ", held" if "current" in each.names else ""
        remarks.append(f"rollback to {each.rollback}{held}")
    if each.candidate:
        remarks.append("candidate, not published")
    return remarks


def pointing(links: Mapping[str, int | None], number: int) -> tuple[str, ...]:
    """The names of the links that point to a generation."""
    return tuple(name for name, target in links.items() if target == number)
