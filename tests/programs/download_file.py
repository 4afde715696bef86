"""Downloads a file.

python -m tests.programs.download_file URL TARGET
"""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.system.http import download

if __name__ == "__main__":
    download([sys.argv[1]], Path(sys.argv[2]), limit=100_000)
