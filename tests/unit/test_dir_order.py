"""In which order tar restores times of directories rightly."""

from __future__ import annotations

import pytest

from tasks.seed.dir_order import Order


def first_back(names: str) -> str | None:
    """The first of the names that goes back; those that end in / are directories."""
    order = Order()
    for name in names.split():
        path = name.removeprefix(".").strip("/")
        if order.goes_back(name.encode(), path.encode(), directory=name.endswith("/")):
            return name
    return None


@pytest.mark.parametrize(
    "names",
    [
        "./ ./a/ ./a/x ./a/b/ ./a/b/y ./a/c/ ./a/z ./b ./c/ ./c/x",
        "a/ a/x b/ b/x",
        "./ ./a/ ./a/b/ ./a/b/c/ ./d",
        "./a/x ./b/x ./a/y",  # no entry says which time they have
        "./a/x ./a/ ./b",  # told after what is in it
        "./a/ ./ab ./a.b/ ./a.b/x",
        "./x ./ ./y",
    ],
)
def test_the_usual_order(names: str) -> None:
    assert first_back(names) is None


@pytest.mark.parametrize(
    ("names", "back"),
    [
        ("./a/ ./b ./a/x ./c", "./a/x"),
        ("./a/ ./a/x ./ab ./a/y", "./a/y"),
        ("./a/ ./a/b/ ./a/c ./a/b/x", "./a/b/x"),
        ("./a/ ./a/b/ ./a/b/x ./c/ ./a/d/e/f", "./a/d/e/f"),
        ("./a/x ./a/ ./b/ ./a/y", "./a/y"),
        ("./a/ ./b/ ./a/", "./a/"),
        ("./a/ a/x", "a/x"),  # to tar, another directory
        ("a/ ./ ./b/", "./b/"),
    ],
)
def test_going_back(names: str, back: str) -> None:
    assert first_back(names) == back
