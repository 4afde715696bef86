"""The documentation: its links lead somewhere, and README stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.project import PROJECT

PAGES = [*PROJECT.glob("*.md"), *sorted((PROJECT / "docs").glob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads)
    return set(plain)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    wrong = []
    for link in LINK.findall(text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_every_page_is_in_the_index() -> None:
    index = (PROJECT / "docs/README.md").read_text(encoding="utf-8")
    missing = [p.name for p in PAGES if p.parent != PROJECT and f"({p.name})" not in index]
    assert missing == ["README.md"]


def test_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_runs_in_readme_are_those_of_the_tutorial() -> None:
    """The tutorial's are compared with real runs by tests/e2e/test_tutorial.py."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    tutorial = (PROJECT / "docs/tutorial.md").read_text(encoding="utf-8")
    runs = re.findall(r"```console\n.*?```", readme, re.DOTALL)
    assert len(runs) == 3
    assert [run for run in runs if run not in tutorial] == []
