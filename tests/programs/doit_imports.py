"""Runs doit and prints the modules that are imported by then, after `imported: `."""

from __future__ import annotations

import sys

from doit.doit_cmd import DoitMain

if __name__ == "__main__":
    code = DoitMain().run(sys.argv[1:])
    print("imported:", *sorted(sys.modules))
    sys.exit(code)
