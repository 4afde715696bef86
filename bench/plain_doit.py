"""Run doit without the plugins of this project: python bench/plain_doit.py WORDS..."""

from __future__ import annotations

import sys

from doit.doit_cmd import DoitMain
from doit.plugin import PluginDict

if __name__ == "__main__":
    PluginDict.entry_point_prefix = "none"  # whose entry points it looks up
    sys.exit(DoitMain().run(sys.argv[1:]))
