"""Extract one stage tarball: python -m bench.extract_one FILE SHA512 TARGET."""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.seed.extract import Archive, extract

if __name__ == "__main__":
    file, target = Path(sys.argv[1]), Path(sys.argv[3])
    with file.open("rb") as stream:
        extract(Archive(stream, file.name, sys.argv[2]), target, target.with_name("trash"))
