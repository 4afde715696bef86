"""Deleting generations, the target of a rollback, and the list of generations."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import BinmillError
from tasks.publish.generation import Generation, Issue, Rollback, Source
from tasks.publish.retention import as_json, expendable, rollback_target, text
from tests.kit.refused import refused

DAY = 86400


def generation(
    number: int, day: float, *names: str, rollback: int | None = None, candidate: bool = False
) -> Generation:
    issue = Issue(
        timestamp=int(day * DAY),
        created=0,
        views={"public": 21},
        packages=21,
        rollback=None if rollback is None else Rollback(rollback),
    )
    return Generation(number, Source(f"{number:x}" * 32, "A" * 40, {}), issue, names, candidate)


def test_old_generations_without_a_name_are_expendable() -> None:
    generations = [generation(n, n) for n in range(1, 8)]

    def numbers(pinned: tuple[int, ...] = (), keep: int = 3, days: int = 7, now: float = 7) -> Any:
        return expendable(generations, pinned, keep=keep, keep_days=days, now=now * DAY)

    assert numbers() == []
    assert numbers(days=0) == [1, 2, 3, 4]
    assert numbers(days=3) == [1, 2, 3]  # 3 was the newest until day 4
    assert numbers(days=3, now=6.9) == [1, 2]
    assert numbers(days=0, keep=1, pinned=(2, 5)) == [1, 3, 4, 6]
    assert numbers(days=0, keep=100) == []
    assert expendable([], (), keep=1, keep_days=0, now=0) == []


def test_named_generations_stay_and_candidates_do_not_count() -> None:
    generations = [
        generation(1, 1, "stable"),
        generation(2, 2),
        generation(3, 3, "previous"),
        generation(4, 4, "current"),
        generation(5, 5, candidate=True),
    ]
    assert expendable(generations, (), keep=1, keep_days=0, now=100 * DAY) == [2]


def test_rollback_goes_to_the_generation_rollback_target() -> None:
    plain = [generation(1, 1), generation(2, 2), generation(3, 3, "current")]
    assert rollback_target(plain, 3, "") == 2
    assert rollback_target(plain, 3, "1") == 1
    once = [*plain[:2], generation(3, 3), generation(4, 4, "current", rollback=2)]
    assert rollback_target(once, 4, "") == 1  # one further back each time
    assert rollback_target(once, 4, "3") == 3
    thrice = [*once, generation(5, 5, rollback=1), generation(6, 6, "current")]
    assert rollback_target(thrice, 6, "") == 3
    assert rollback_target([generation(4, 4, rollback=2), generation(6, 6, "current")], 6, "") == 4


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("9", "rollback-target-unknown"),
        ("x", "rollback-target-unknown"),
        ("2", "rollback-target-current"),
        ("3", "rollback-target-unknown"),
        ("-1", "rollback-target-unknown"),
        ("", "rollback-nothing-earlier"),
    ],
)
def test_rollback_without_a_target_is_refused(target: str, code: str) -> None:
    generations = [generation(2, 2, "current"), generation(3, 3, candidate=True)]
    with refused(BinmillError, code, generations=["2"]):
        rollback_target(generations, 2, target)


def test_rollback_with_nothing_published_is_refused() -> None:
    with refused(BinmillError, "rollback-nothing-published"):
        rollback_target([], None, "")


def test_list_as_text_and_json() -> None:
    listed = [
        generation(1, 1),
        generation(2, 2, "previous", "stable"),
        generation(3, 3, "current", rollback=1),
        generation(4, 4, candidate=True),
    ]
    assert text("base", listed).splitlines() == [
        "base",
        "     1  1970-01-02 00:00 UTC     21 packages  set 111111111111",
        "     2  1970-01-03 00:00 UTC     21 packages  set 222222222222  previous, stable",
        "     3  1970-01-04 00:00 UTC     21 packages  set 333333333333  current, "
        "rollback to 1, held",
        "     4  1970-01-05 00:00 UTC     21 packages  set 444444444444  candidate, not published",
    ]
    assert as_json("base", listed)[2] == {
        "binhost": "base",
        "number": 3,
        "timestamp": 3 * DAY,
        "set": "3" * 32,
        "packages": 21,
        "names": ["current"],
        "rollback": 1,
        "candidate": False,
    }
