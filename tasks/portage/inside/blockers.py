"""Run inside a chroot, by its Python: which blockers are about which packages.

python3 blockers.py REQUEST.json, a list of {"blocker", "cpv", "slot"}; prints a list of
true and false. Nothing else of this project is there: only Portage and the standard library.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from portage.dep import Atom, match_from_list  # type: ignore[import-not-found,unused-ignore]


def is_about(blocker: str, cpv: str, slot: str) -> bool:
    """Whether an atom that begins with ! or !! is about a package (PMS 8.3.2)."""
    return bool(match_from_list(Atom(blocker.lstrip("!")), [f"{cpv}:{slot}"]))


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps([is_about(**each) for each in asked]))
