"""What a change of the config is called."""

from __future__ import annotations

from typing import Any

import pytest
from tasks.engine.difference import difference, masked

CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"a": 1}, {"a": 1}, ""),
    (
        {"chroot": {"package_use": {}}},
        {"chroot": {"package_use": {"dev-libs/libyaml": ["static-libs"]}}},
        "package.use changed: dev-libs/libyaml +static-libs",
    ),
    ({"use": ["a", "b"]}, {"use": ["a", "-gui"]}, "use changed: -gui (no longer b)"),
    ({"use": ["a", "b"]}, {"use": ["b", "a"]}, "use changed: in another order"),
    ({"env": {"CFLAGS": "-O2"}}, {"env": {"CFLAGS": "-O3"}}, "env changed: CFLAGS -O2 -> -O3"),
    ({"env": {}}, {"env": {"A": "b"}}, "env changed: A nothing -> b"),
    ({"profile": None}, {"profile": "x"}, "profile changed: nothing -> x"),
    (
        {"a": 1, "b": 2},
        {"a": 2, "c": 3},
        "a changed: 1 -> 2; b changed: 2 -> nothing; c changed: nothing -> 3",
    ),
    ({"a": "x"}, {"a": "y" * 100}, f"a changed: x -> {'y' * 57}..."),
]


@pytest.mark.parametrize(("old", "new", "said"), CASES, ids=[case[2] or "same" for case in CASES])
def test_what_is_said(old: dict[str, Any], new: dict[str, Any], said: str) -> None:
    assert difference(old, new) == said


def test_no_password_is_kept() -> None:
    kept = masked({"a": ["http://me:secret@host/x"], "b": {"url": "https://t@host"}, "n": 3})
    assert kept == {"a": ["http://host/x"], "b": {"url": "https://host"}, "n": 3}
