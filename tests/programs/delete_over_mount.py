"""Deletes a tree in which something is mounted, then again after it was unmounted.

python -m tests.programs.delete_over_mount SITE HOW, in a mount namespace of its own; prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tasks.errors import BinmillError
from tasks.system import files


def main(site: Path, how: str) -> None:
    """Mount a folder, a file or a tmpfs in the tree, on its root, or in the trash."""
    tree, trash, outside = site / "tree \u4e2d\\040 x", site / "trash", site / "outside"
    point = tree / "a" / "b"
    point.mkdir(parents=True)
    outside.mkdir()
    (outside / "precious").write_text("precious")
    source = ["--bind", str(outside)]
    if how == "file":
        point.rmdir()
        point.write_text("")
        source = ["--bind", str(outside / "precious")]
    elif how == "tmpfs":
        source = ["-t", "tmpfs", "tmpfs"]
    elif how == "root":
        point = tree
    elif how == "trash":
        trash.mkdir()
        tree.rename(trash / "left")
        point = trash / "left" / "a" / "b"
    subprocess.run(["mount", *source, point], check=True)
    message = ""
    try:
        files.empty_trash(trash) if how == "trash" else files.remove_tree(tree, trash)
    except BinmillError as error:
        message = str(error)
    mounts = files.mounts_below(site)
    subprocess.run(["umount", mounts[0]], check=True)
    if how != "trash":
        files.remove_tree(tree, trash)
    files.empty_trash(trash)
    result = {
        "message": message,
        "mounts": [str(mount) for mount in mounts],
        "outside": [path.name for path in outside.iterdir()],
        "left": sorted(path.name for path in site.iterdir()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
