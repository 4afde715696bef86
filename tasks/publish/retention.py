"""The generations of a binhost as a person asks for them, and which may go. Pure.

Each has a number and a TIMESTAMP, and both only grow: what a client reads is never older than what
it read before, after a rollback too.
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
    """The generations that may be deleted, oldest first.

    Those stay that something points to or that are `pinned`, the newest `keep`, and those that were
    the newest at some time of the last `keep_days`: of them a client may have an index.
    """
    ordered = sorted((each for each in kept if not each.candidate), key=lambda g: g.number)
    gone = []
    for place, each in enumerate(ordered[:-keep]):
        since = ordered[place + 1].timestamp  # then it was followed by the next one
        outlived = keep_days == 0 or now - since >= keep_days * _DAY
        if outlived and not each.names and each.number not in pinned:
            gone.append(each.number)
    return gone


def before(kept: Sequence[Generation], current: int | None, asked: str) -> int:
    """The generation that a rollback goes back to: the one that is asked for, else the one before.

    Of one that is itself a rollback, the one before is that before the one it brought back. Raises
    BinmillError where there is none.
    """
    numbers = {each.number: each for each in kept if not each.candidate}
    listed = f"doit generations lists them: {', '.join(map(str, sorted(numbers))) or 'none'}"
    if asked:
        if not asked.isdecimal() or int(asked) not in numbers:
            raise BinmillError(f"there is no generation {asked[:40]!r} to go back to", listed)
        if int(asked) == current:
            raise BinmillError(f"generation {asked} is current already", listed)
        return int(asked)
    if current is None or current not in numbers:
        raise BinmillError("nothing is published yet, so there is nothing to go back to", listed)
    start = numbers[current]
    earlier = [n for n in numbers if n < (start.rollback or start.number)]
    # what was brought back by a rollback is there under its own number
    earlier = [n for n in earlier if numbers[n].rollback is None] or earlier
    if not earlier:
        raise BinmillError(f"no generation before {start.rollback or current} is kept", listed)
    return max(earlier)


def as_json(name: str, found: Sequence[Generation]) -> list[dict[str, Any]]:
    """For a program: a dict for each generation, oldest first."""
    return [{"binhost": name, **asdict(each), "names": list(each.names)} for each in found]


def text(name: str, found: Sequence[Generation]) -> str:
    """For a person: a line for each generation, oldest first."""
    lines = [name]
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(each.timestamp))
        lines.append(
            f"  {each.number:>4}  {when}  {each.packages:>5} packages  set {each.set[:12]}  "
            + ", ".join(_remarks(each))
        )
    return "\n".join(line.rstrip() for line in lines)


def _remarks(each: Generation) -> list[str]:
    said = list(each.names)
    if each.rollback is not None:
        held = ", held" if "current" in each.names else ""
        said.append(f"has the packages of {each.rollback} again{held}")
    if each.candidate:
        said.append("candidate, not published")
    return said


def pointing(links: Mapping[str, int | None], number: int) -> tuple[str, ...]:
    """The names of the links that lead to a generation."""
    return tuple(name for name, target in links.items() if target == number)
