"""Runs `doit list` where no entry point is installed."""

from __future__ import annotations

import importlib.metadata
import sys
from unittest import mock

from doit.doit_cmd import DoitMain

if __name__ == "__main__":
    with mock.patch.multiple(
        importlib.metadata, entry_points=lambda **_: (), distributions=lambda **_: ()
    ):
        sys.exit(DoitMain().run(["list"]))
