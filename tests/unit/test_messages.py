"""The catalogue of sentences: each code is used, has the fields it is used with, and reads well.

The files in tests/unit/golden/ show every sentence with sample fields. After a change of the
catalogue, look at the new sentences: UPDATE_GOLDEN=1 pytest tests/unit/test_messages.py
"""

from __future__ import annotations

import ast
import os
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import tomli

from tasks import messages
from tasks.errors import BinmillError
from tasks.messages import Field

PROJECT = Path(__file__).parents[2]
FILES = sorted((PROJECT / "tasks/messages").glob("*.toml"))
GOLDEN = Path(__file__).parent / "golden"
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


class Use(NamedTuple):
    """A place in the source that names a code, and the fields it passes; None if unknown."""

    place: str
    code: str
    fields: frozenset[str] | None


def sources() -> Iterator[tuple[str, ast.AST]]:
    """Every node of the source, with the place of its file."""
    for path in sorted([*(PROJECT / "tasks").rglob("*.py"), *(PROJECT / "lab").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield str(path.relative_to(PROJECT)), node


def uses() -> Iterator[Use]:
    """Every call whose first argument is a code of the catalogue, and every other mention."""
    catalogue = messages.catalogue()
    for place, node in sources():
        if isinstance(node, ast.Call) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and first.value in catalogue:
                names = {keyword.arg for keyword in node.keywords}
                if getattr(node.func, "id", "") == "explained":
                    names.add("cause")  # the words of git
                unknown = None in names or len(node.args) > 1
                fields = None if unknown else frozenset(str(name) for name in names)
                yield Use(f"{place}:{node.lineno}", str(first.value), fields)
        elif isinstance(node, ast.Constant) and node.value in catalogue:
            yield Use(f"{place}:{node.lineno}", str(node.value), None)


def blanks(text: str) -> dict[str, str]:
    """The blanks of a sentence: field name and format specification."""
    parts = string.Formatter().parse(text)
    return {name: spec or "" for _, name, spec, _ in parts if name is not None}


def sample(name: str, spec: str) -> Field:
    if spec.startswith(("count ", "nonzero ")):
        return 3
    if spec in ("list", "few", "sentences", "lines"):
        return [f"{name}-1", f"{name}-2"]
    if spec == "size" or spec.endswith(("d", "o", "x")):
        return 42_000_000
    if spec == "utc":
        return 1_768_524_300
    if spec == "span" or spec.endswith(("f", "g")):
        return 93.5
    return name.upper()


USES = list(uses())


def test_code_in_source_passes_the_fields_of_its_sentence() -> None:
    wrong = []
    for use in USES:
        message = messages.catalogue()[use.code]
        wanted = set(blanks(message.text)) | set(blanks(message.next))
        if use.fields is not None and not wanted <= use.fields:
            wrong.append(f"{use.place}: {use.code} lacks {sorted(wanted - use.fields)}")
    assert wrong == []


def test_error_in_source_has_a_code_of_the_catalogue() -> None:
    nodes = list(sources())
    errors = {"BinmillError"}
    for _ in range(4):  # as deep as the tree of errors is
        for _, node in nodes:
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                errors |= {node.name} if bases & errors else set()
    wrong = []
    for place, node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            codes = [each.value for each in node.args[:1] if isinstance(each, ast.Constant)]
            in_catalogue = all(code in messages.catalogue() for code in codes)
            if name in errors and codes and (not in_catalogue or len(node.args) > 1):
                wrong.append(f"{place}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert wrong == []


def test_code_in_catalogue_is_used() -> None:
    assert sorted(messages.catalogue().keys() - {use.code for use in USES}) == []


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.stem))
def test_sentence_has_no_stray_blanks_or_ends(file: Path) -> None:
    for code, table in tomli.loads(file.read_text(encoding="utf-8")).items():
        assert CODE.fullmatch(code), code
        for part in (table["text"], table.get("next", "")):
            assert part == part.strip(), code
            assert not part.endswith("."), code


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.stem))
def test_sentence_reads_as_the_golden_file_shows(file: Path) -> None:
    sentences = ""
    for code, table in tomli.loads(file.read_text(encoding="utf-8")).items():
        spec = blanks(table["text"]) | blanks(table.get("next", ""))
        error = BinmillError(code, **{name: sample(name, each) for name, each in spec.items()})
        sentences += f"[{code}]\n{error}\n\n"
    golden = GOLDEN / f"{file.stem}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(sentences, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == sentences


def test_error_keeps_code_and_fields_and_renders_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = messages.Message("{files:count file} of {who}: {files:lines}", "ask {who}")
    monkeypatch.setattr(messages, "catalogue", lambda: {"two-words": entry})
    error = BinmillError("two-words", files=["a\x1b[31m", "b"], who="x\u202ey")
    assert (error.code, error.fields["files"]) == ("two-words", ["a\x1b[31m", "b"])
    assert str(error) == "2 files of x?y: \n  a?[31m\n  b\n  next: ask x?y"
