"""Changes of the settings that a task reads, as data and in words."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.causes import SettingChange
from tasks.engine.settings import changes, masked

CASES: list[tuple[dict[str, Any], dict[str, Any], list[SettingChange], str]] = [
    ({"a": 1}, {"a": 1}, [], ""),
    (
        {"chroot": {"package_use": {}}},
        {"chroot": {"package_use": {"dev-libs/libyaml": ["static-libs"]}}},
        [SettingChange("package.use dev-libs/libyaml", added=("static-libs",))],
        "package.use dev-libs/libyaml: +static-libs",
    ),
    (
        {"use": ["a", "b"]},
        {"use": ["a", "-gui"]},
        [SettingChange("use", added=("-gui",), removed=("b",))],
        "use: -gui (no longer b)",
    ),
    ({"use": ["a", "b"]}, {"use": ["b", "a"]}, [SettingChange("use")], "use: in another order"),
    (
        {"env": {"CFLAGS": "-O2"}},
        {"env": {"CFLAGS": "-O3"}},
        [SettingChange("env CFLAGS", "-O2", "-O3")],
        "env CFLAGS: -O2 -> -O3",
    ),
    (
        {"env": {}},
        {"env": {"A": "b"}},
        [SettingChange("env A", "", "b")],
        "env A: nothing -> b",
    ),
    (
        {"profile": None},
        {"profile": "x"},
        [SettingChange("profile", "", "x")],
        "profile: nothing -> x",
    ),
    (
        {"a": 1, "b": 2},
        {"a": 2, "c": 3},
        [SettingChange("a", "1", "2"), SettingChange("b", "2"), SettingChange("c", "", "3")],
        "a: 1 -> 2; b: 2 -> nothing; c: nothing -> 3",
    ),
    (
        {"a": "x"},
        {"a": "y" * 100},
        [SettingChange("a", "x", f"{'y' * 57}...")],
        f"a: x -> {'y' * 57}...",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "expected", "words"), CASES, ids=[case[3] or "same" for case in CASES]
)
def test_changes_of_settings(
    old: dict[str, Any], new: dict[str, Any], expected: list[SettingChange], words: str
) -> None:
    actual = list(changes(old, new))
    assert actual == expected
    assert "; ".join(map(str, actual)) == words


def test_masked_settings_have_no_password() -> None:
    settings = {"a": ["http://me:secret@host/x"], "b": {"url": "https://t@host"}, "n": 3}
    assert masked(settings) == {"a": ["http://host/x"], "b": {"url": "https://host"}, "n": 3}
