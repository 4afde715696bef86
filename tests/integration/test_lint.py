"""The linters, as tests: a failing test shows their output."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.project import PROJECT

SOURCES = ["dodo.py", "tasks", "tests"]


@pytest.mark.parametrize(
    "words",
    [("ruff", "check", *SOURCES), ("ruff", "format", "--check", *SOURCES), ("mypy",)],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_nothing_to_say(words: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *words], cwd=PROJECT, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
