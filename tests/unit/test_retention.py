"""Which generations may go, to which one a rollback goes, and how they are told."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import BinmillError
from tasks.publish.retention import Generation, as_json, before, expendable, text

DAY = 86400


def made(number: int, day: float, *names: str, **more: Any) -> Generation:
    return Generation(number, int(day * DAY), f"{number:x}" * 32, 21, names, **more)


def test_what_may_go() -> None:
    kept = [made(n, n) for n in range(1, 8)]

    def gone(pinned: tuple[int, ...] = (), keep: int = 3, days: int = 7, now: float = 7) -> Any:
        return expendable(kept, pinned, keep=keep, keep_days=days, now=now * DAY)

    assert gone() == []
    assert gone(days=0) == [1, 2, 3, 4]
    assert gone(days=3) == [1, 2, 3]  # 3 was the newest until day 4
    assert gone(days=3, now=6.9) == [1, 2]
    assert gone(days=0, keep=1, pinned=(2, 5)) == [1, 3, 4, 6]
    assert gone(days=0, keep=100) == []
    assert expendable([], (), keep=1, keep_days=0, now=0) == []


def test_what_something_points_to_stays_and_candidates_are_not_counted() -> None:
    kept = [
        made(1, 1, "stable"),
        made(2, 2),
        made(3, 3, "previous"),
        made(4, 4, "current"),
        made(5, 5, candidate=True),
    ]
    assert expendable(kept, (), keep=1, keep_days=0, now=100 * DAY) == [2]


def test_where_a_rollback_goes() -> None:
    plain = [made(1, 1), made(2, 2), made(3, 3, "current")]
    assert before(plain, 3, "") == 2
    assert before(plain, 3, "1") == 1
    again = [*plain[:2], made(3, 3), made(4, 4, "current", rollback=2)]
    assert before(again, 4, "") == 1  # one further back each time
    assert before(again, 4, "3") == 3
    thrice = [*again, made(5, 5, rollback=1), made(6, 6, "current")]
    assert before(thrice, 6, "") == 3
    assert before([made(4, 4, rollback=2), made(6, 6, "current")], 6, "") == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("9", "no generation '9'"),
        ("x", "no generation 'x'"),
        ("2", "is current already"),
        ("3", "no generation '3'"),
        ("-1", "no generation '-1'"),
        ("", "no generation before 2"),
    ],
)
def test_where_a_rollback_cannot_go(asked: str, said: str) -> None:
    kept = [made(2, 2, "current"), made(3, 3, candidate=True)]
    with pytest.raises(BinmillError, match=said) as refused:
        before(kept, 2, asked)
    assert "doit generations lists them: 2" in refused.value.hint
    with pytest.raises(BinmillError, match="nothing is published yet"):
        before([], None, "")


def test_told() -> None:
    found = [
        made(1, 1),
        made(2, 2, "previous", "stable"),
        made(3, 3, "current", rollback=1),
        made(4, 4, candidate=True),
    ]
    assert text("base", found).splitlines() == [
        "base",
        "     1  1970-01-02 00:00 UTC     21 packages  set 111111111111",
        "     2  1970-01-03 00:00 UTC     21 packages  set 222222222222  previous, stable",
        "     3  1970-01-04 00:00 UTC     21 packages  set 333333333333  current, "
        "has the packages of 1 again, held",
        "     4  1970-01-05 00:00 UTC     21 packages  set 444444444444  candidate, not published",
    ]
    assert as_json("base", found)[2] == {
        "binhost": "base",
        "number": 3,
        "timestamp": 3 * DAY,
        "set": "3" * 32,
        "packages": 21,
        "names": ["current"],
        "rollback": 1,
        "candidate": False,
    }
