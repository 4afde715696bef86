"""Match blockers with packages; the Python of a chroot runs this file.

python3 blockers.py REQUEST.json, a list of {"blocker", "cpv", "slot"}; prints a list of true and
false. It imports Portage and the standard library only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from portage.dep import Atom, match_from_list  # type: ignore[import-not-found,unused-ignore]


def blocks(blocker: str, cpv: str, slot: str) -> bool:
    """Tell whether an atom that begins with ! or !! matches a package (PMS 8.3.2)."""
    return bool(match_from_list(Atom(blocker.lstrip("!")), [f"{cpv}:{slot}"]))


if __name__ == "__main__":
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps([blocks(**each) for each in request]))
