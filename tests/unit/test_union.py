"""Layers seen as one tree."""

from __future__ import annotations

from pathlib import Path

from tasks.buildroot.union import Union


def test_path_of_any_depth_is_looked_up(tmp_path: Path) -> None:
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    depth = 1500  # more than Python's limit of recursion
    for layer in (top, bottom):
        (layer / "a/a").mkdir(parents=True)
    deep = "a/" * depth + "x"
    assert Union((top, bottom)).find(deep) is None
    assert Union((top, bottom)).find("a/a") == top / "a/a"
    assert not Union((top, bottom)).is_unmerged("a/a")
    assert Union((top, bottom)).is_unmerged("a/" * (depth - 1) + "a")
