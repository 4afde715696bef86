"""docs/faults.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.kit.project import PROJECT

NAMES = re.compile(r"`(\w+/test_\w+\.py)::(test_\w+)`")


def functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists() -> None:
    references = NAMES.findall((PROJECT / "docs/faults.md").read_text(encoding="utf-8"))
    missing = [
        f"{file}::{name}"
        for file, name in references
        if not (PROJECT / "tests" / file).exists()
        or name not in functions(PROJECT / "tests" / file)
    ]
    assert missing == []
    assert len(references) > 80


def test_every_fault_has_a_test() -> None:
    page = (PROJECT / "docs/faults.md").read_text(encoding="utf-8")
    survived, _, _ = page.partition("## Not yet")
    faults = re.findall(r"^- (.*?)(?=^- |^## |\Z)", survived, re.DOTALL | re.MULTILINE)
    assert [fault for fault in faults if not NAMES.search(fault)] == []


def test_source_names_no_fault_by_a_number() -> None:
    sources = [path for folder in ("tasks", "tests") for path in (PROJECT / folder).rglob("*.py")]
    numbered = [
        str(path) for path in sources if re.search(r"[Ff]aults? \d", path.read_text("utf-8"))
    ]
    assert numbered == []
