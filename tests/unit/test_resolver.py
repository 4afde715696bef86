"""The answer of the program that plans in a chroot: a plan, an error, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.errors import BinmillError
from tasks.planner import plan as plans
from tasks.planner import resolver
from tests.kit.plan_factory import package, plan
from tests.kit.refused import refused


def parse(answer: Any) -> plans.Plan:
    """Parse an answer, as data or as text."""
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return resolver.parse_answer("base", raw, "seed")


def test_answer_with_a_plan_is_that_plan() -> None:
    made = plan()
    assert parse({"plan": json.loads(plans.render(made))}) == made


def test_reason_of_portage_is_told_line_by_line() -> None:
    text = (
        '\n\nemerge: there are no ebuilds to satisfy "x/y".\n(dependency required by \x1b[1mz)\n\n'
    )
    with refused(BinmillError, "plan-unresolved", chroot="base") as error:
        parse({"unresolved": text})
    assert error.value.fields["reason"] == [
        'emerge: there are no ebuilds to satisfy "x/y".',
        "(dependency required by ?[1mz)",
    ]
    assert "\x1b" not in str(error.value)


def test_long_reason_is_cut() -> None:
    lines = resolver.reason_lines("\n".join(["y" * 1000] * 100))
    assert len(lines) == 41
    assert max(map(len, lines)) <= 200
    assert lines[-1] == "... (60 more lines)"
    assert resolver.reason_lines(" \n") == ["it does not say why"]


def test_distfile_without_digest_is_named() -> None:
    fields = {"package": "a/b-1", "file": "b-1.tar"}
    with refused(BinmillError, "plan-distfile-without-digest", **fields):
        parse({"undigested": ["a/b-1", "b-1.tar"]})


PLAN = json.loads(plans.render(plan()))
MALFORMED: list[Any] = [
    b"",
    b"{",
    b"\xff",
    b"[" * 100_000,
    None,
    [],
    {},
    {"plan": None},
    {"plan": {}},
    {"plan": PLAN, "more": 1},
    {"more": 1, "plan": PLAN},
    {"plan": {**PLAN, "more": 1}},
    {"plan": {**PLAN, "packages": [{**PLAN["packages"][0], "cpv": "../../x"}]}},
    {"unresolved": 1},
    {"unresolved": "x", "more": 1},
    {"undigested": ["x"]},
    {"undigested": ["x", 1]},
    {"undigested": "xy"},
    b'{"plan": ' + json.dumps(PLAN).encode() + b', "plan": {}}',
]


@pytest.mark.parametrize("answer", MALFORMED, ids=lambda each: str(each)[:40])
def test_answer_of_another_form_is_refused(answer: Any) -> None:
    with refused(BinmillError, "plan-answer-malformed", chroot="base"):
        parse(answer)


def test_request_names_the_packages_beside_world() -> None:
    assert resolver.request(["x/b", "x/a"]) == ["@world", "x/a", "x/b"]


@pytest.mark.parametrize("word", ["interactive", "live"])
def test_package_that_cannot_be_built_repeatably_is_refused(word: str) -> None:
    good, bad = package("a/good-1"), package("a/bad-9999", properties=(word,))
    resolver.check_buildable(plan(good), "base")
    with refused(BinmillError, f"plan-{word}", chroot="base", packages=["a/bad-9999"]):
        resolver.check_buildable(plan(good, bad), "base")
