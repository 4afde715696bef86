"""Commands that run the programs in tests/programs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from tests.kit.project import PROJECT

PROGRAMS = PROJECT / "tests/programs"


def python(program: ModuleType, *arguments: str | Path | int) -> list[str]:
    """Run a program of tests/programs by this interpreter; to be started in PROJECT."""
    return [sys.executable, "-m", program.__name__, *map(str, arguments)]


def shell(program: str, *arguments: str | Path) -> list[str]:
    """Run a shell script of tests/programs."""
    return ["sh", str(PROGRAMS / program), *map(str, arguments)]
