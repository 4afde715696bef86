"""Layers: what a chroot adds to the ones below it. A committed layer is never written again.

A chroot is an overlay of layers over the seed, so a derived one appears at once and costs only
what differs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.errors import BinmillError
from tasks.system.command import require_root
from tasks.system.files import remove_tree, sync_folder, sync_tree


def contents(name: str, lineage: Sequence[str]) -> dict[str, str]:
    """The files of a chroot's own layer, by path inside; pure.

    resolv.conf is only a place: the host's own is mounted on it, so that it is always current.
    """
    return {
        "etc/binmill-chroot": f"{' > '.join(lineage)}\n",
        "etc/hosts": f"127.0.0.1 localhost {name}\n::1 localhost\n",
        "etc/resolv.conf": "# the host's resolv.conf is mounted here\n",
    }


def commit(files: Mapping[str, str], below: Sequence[Path], target: Path, trash: Path) -> None:
    """Make a layer of `files` over the layers `below` (topmost first) in one step."""
    require_root("make a chroot's layer")
    if target.is_dir():
        return
    scratch = target.with_name(f".{target.name}.tmp")
    remove_tree(scratch, trash)
    scratch.mkdir(parents=True)
    scratch.chmod(0o755)
    for path, text in files.items():
        place(scratch, below, path, text)
    sync_tree(scratch)
    scratch.rename(target)
    sync_folder(target.parent)


def place(upper: Path, below: Sequence[Path], path: str, text: str) -> None:
    """Write one file into an upper layer, with the folders above it as the layers below have them.

    An upper folder hides the owner and mode of the lower one, so both are copied. Raises
    BinmillError when a folder of the path is a link below: nothing is written through links.
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
                raise BinmillError(f"/{inner} is not a directory in {layer}")
            os.chown(folder, status.st_uid, status.st_gid)
            folder.chmod(stat.S_IMODE(status.st_mode))
            break
    target = upper / path
    target.write_text(text, encoding="utf-8")
    target.chmod(0o644)
