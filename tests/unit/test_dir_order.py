"""The order of entries in which tar sets the times of directories correctly."""

from __future__ import annotations

import pytest

from tasks.seed.dir_order import DirectoryOrder


def first_reopening(names: str) -> str | None:
    """Return the first name that reopens a directory; names that end in / are directories."""
    order = DirectoryOrder()
    for name in names.split():
        path = name.removeprefix(".").strip("/")
        if order.reopens(name.encode(), path.encode(), directory=name.endswith("/")):
            return name
    return None


@pytest.mark.parametrize(
    "names",
    [
        "./ ./a/ ./a/x ./a/b/ ./a/b/y ./a/c/ ./a/z ./b ./c/ ./c/x",
        "a/ a/x b/ b/x",
        "./ ./a/ ./a/b/ ./a/b/c/ ./d",
        "./a/x ./b/x ./a/y",  # no entry has a time for the directories
        "./a/x ./a/ ./b",  # after an entry in it
        "./a/ ./ab ./a.b/ ./a.b/x",
        "./x ./ ./y",
    ],
)
def test_reopens_in_the_usual_order_is_never_true(names: str) -> None:
    assert first_reopening(names) is None


@pytest.mark.parametrize(
    ("names", "reopening"),
    [
        ("./a/ ./b ./a/x ./c", "./a/x"),
        ("./a/ ./a/x ./ab ./a/y", "./a/y"),
        ("./a/ ./a/b/ ./a/c ./a/b/x", "./a/b/x"),
        ("./a/ ./a/b/ ./a/b/x ./c/ ./a/d/e/f", "./a/d/e/f"),
        ("./a/x ./a/ ./b/ ./a/y", "./a/y"),
        ("./a/ ./b/ ./a/", "./a/"),
        ("./a/ a/x", "a/x"),  # for tar, another directory
        ("a/ ./ ./b/", "./b/"),
    ],
)
def test_reopens_at_the_entry_that_returns(names: str, reopening: str) -> None:
    assert first_reopening(names) == reopening
