"""The picture in docs/architecture.md is the graph. UPDATE_GOLDEN=1 writes it."""

from __future__ import annotations

import os
import re

from tests.kit.graph_picture import mermaid
from tests.kit.project import PROJECT

PAGE = PROJECT / "docs/architecture.md"
PICTURE = re.compile(r"(<!-- graph: .*? -->\n```mermaid\n)(.*?)(```\n<!-- /graph -->)", re.DOTALL)


def test_picture_in_the_documentation_is_the_graph() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_GOLDEN"):
        text = PICTURE.sub(lambda match: match[1] + mermaid() + match[3], text)
        PAGE.write_text(text, encoding="utf-8")
    match = PICTURE.search(text)
    assert match is not None
    assert match[2] == mermaid()


def test_picture_shows_each_arrow_once_and_no_circle() -> None:
    arrows = re.findall(r"^  (\w+) -->? (\w+)$", mermaid(), re.MULTILINE)
    assert len(arrows) == len(set(arrows)) > 15
    left = {b for _, b in arrows}
    while left:  # remove nodes without incoming arrows; a circle would never end
        free = {b for b in left if not any(b == end and start in left for start, end in arrows)}
        assert free, left
        left -= free
