"""Layers: the files that a chroot adds to those below it. A committed layer is never modified.

A chroot is an overlay of layers over the seed, so deriving one takes no time and only the space of
the differences.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.errors import BinmillError
from tasks.system.command import require_root
from tasks.system.files import staged


def contents(name: str, lineage: Sequence[str]) -> dict[str, str]:
    """The files of a chroot's own layer, text by path inside; pure.

    resolv.conf is only a mount point: the host's is mounted there, so that it is always current.
    """
    return {
        "etc/binmill-chroot": f"{' > '.join(lineage)}\n",
        "etc/hosts": f"127.0.0.1 localhost {name}\n::1 localhost\n",
        "etc/resolv.conf": "# the host's resolv.conf is mounted here\n",
    }


def commit(files: Mapping[str, str], below: Sequence[Path], target: Path, trash: Path) -> None:
    """Write a layer of `files` over the layers `below` (topmost first) in one step."""
    require_root("make a chroot's layer")
    if target.is_dir():
        return
    with staged(target, trash) as folder:
        folder.chmod(0o755)
        for path, text in files.items():
            write_file(folder, below, path, text)


def write_file(upper: Path, below: Sequence[Path], path: str, text: str) -> None:
    """Write one file into an upper layer, in directories as the layers below have them.

    A directory in the upper layer hides the owner and mode of the lower one, so both are copied.
    Raises BinmillError if a directory of the path is a link below: no link is followed.
    """
    folders = path.split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        inner = Path(*folders[:depth])
        folder = upper / inner
        if folder.is_dir():
            continue
        folder.mkdir()
        folder.chmod(0o755)
        for layer in below:
            try:
                status = (layer / inner).lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                raise BinmillError("layer-lacks-directory", path=f"/{inner}", layer=layer)
            os.chown(folder, status.st_uid, status.st_gid)
            folder.chmod(stat.S_IMODE(status.st_mode))
            break
    target = upper / path
    target.write_text(text, encoding="utf-8")
    target.chmod(0o644)
