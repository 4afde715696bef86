"""Runs nginx without locations, prints its URL and sleeps.

python -m tests.programs.serve_nothing FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tasks.serve.nginx_process import serving

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with serving([], folder / "state", folder / "nginx") as server:
        print(server.url, flush=True)
        time.sleep(60)
