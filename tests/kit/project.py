"""The project that is tested, and the programs of its environment."""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DOIT = Path(sys.executable).with_name("doit")
