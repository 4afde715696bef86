"""Runs of the project's own doit on sites of a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.kit.project import PROJECT

CONFIG = """
[keys.k]
file = "k.asc"
fingerprints = ["FINGERPRINT"]
[mirrors]
gentoo = ["http://127.0.0.1:1"]
[tree]
key = "k"
[seeds.openrc]
flavour = "openrc"
key = "k"
[chroots.base]
seed = "openrc"
profile = "default/linux"
[chroots.java]
base = "base"
""".replace("FINGERPRINT", "A" * 40)


def doit(config: Path, *words: str, code: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "doit", *words],
        cwd=PROJECT,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        env={**os.environ, "BINMILL_CONFIG": str(config)},
    )
    assert result.returncode == code, result.stdout
    return result.stdout
