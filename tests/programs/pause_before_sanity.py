"""Run `seed:s` and pause after the extraction, before its checks: SITE SIGN CONFIG.

The file SIGN appears at the pause; CONFIG is JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tasks.config.tables import Config
from tasks.engine.signals import end_cleanly
from tasks.flow import chroots
from tasks.layout import Layout
from tasks.records import Inputs
from tasks.seed import sanity
from tasks.site import Site


def pause(root: Path) -> None:  # noqa: ARG001
    Path(sys.argv[2]).touch()
    time.sleep(60)


if __name__ == "__main__":
    end_cleanly()
    sanity.check = pause
    folder = Path(sys.argv[1])
    config = Config.model_validate(json.loads(sys.argv[3]))
    layout = Layout(folder, folder / "state")
    inputs = Inputs(layout, frozenset(), frozenset({layout.lock}))
    chroots.extract_seed(Site(layout, config), "s", inputs)
