"""Runs of doit that are killed at random moments, on a host of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.kit.project import PROJECT

# Ways to end a run, and the possible exit codes, as a shell shows them. The run may have ended
# before (0), or not yet handle signals: while Python itself starts, Ctrl-C is a traceback and 1.
WAYS = {
    "kill doit": (137, 0),
    "kill the first process": (0, 1, 137, 143),
    "kill any process": (0, 1, 137, 143),
    "TERM": (143, 0),
    "INT": (130, 0),
    "HUP": (129, 0),
    "close the terminal": (129, 0),
}


@dataclass(frozen=True)
class Work:
    """A run to kill: doit's words, the tasks whose records are deleted first, the run afterwards.

    `keys` are typed at the terminal; a run with keys always has one.
    """

    words: Sequence[str]
    then: Sequence[str]
    again: Sequence[str] = ()
    keys: str = ""
    seconds: float = 0.6  # the kill comes within this time


@dataclass(frozen=True)
class Kill:
    """A run that was killed, and the run after it: None as exit code if it did not end.

    `hit` is the command line of the process that was killed; `left` are processes, mounts, loop
    devices and locks; `output` of both runs is there if something is `wrong`.
    """

    work: Sequence[str]
    way: str
    hit: str
    delay: float
    code: int | None
    code_then: int | None
    left: Sequence[str]
    wrong: bool = False
    output: Sequence[str] = ()


def kill_runs(config: Path, works: Sequence[Work], count: int, seed: int) -> list[Kill]:
    """Kill `count` runs on the site of `config`; see tests/programs/random_kills.py."""
    request = {
        "config": str(config),
        "count": count,
        "seed": seed,
        "works": [asdict(work) for work in works],
    }
    host = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
    result = subprocess.run(
        [*host, sys.executable, "-m", "tests.programs.random_kills"],
        cwd=PROJECT,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BINMILL_CONFIG": str(config), "TERM": "dumb"},
    )
    assert result.returncode == 0, result.stderr
    return [Kill(**json.loads(line)) for line in result.stdout.splitlines()]


def is_first(command_line: str) -> bool:
    """True for the command line of a sandbox's first process; its parent has the same."""
    return "sandbox_init" in command_line and "unshare" not in command_line
