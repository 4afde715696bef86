"""Exports a commit; prints the message of the error, if it fails.

python -m tests.programs.export_tree REPOSITORY COMMIT TARGET TRASH
"""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.errors import BinmillError
from tasks.snapshot.export import export_commit

if __name__ == "__main__":
    repository, commit, target, trash = sys.argv[1:]
    try:
        export_commit(Path(repository), commit, Path(target), Path(trash))
    except BinmillError as error:
        print(error.message)
