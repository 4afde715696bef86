"""The account `portage`, as which Portage fetches and compiles."""

from __future__ import annotations

import os
from pathlib import Path

PORTAGE_ID = 250  # its uid and gid in every stage of Gentoo (acct-user/portage)


def writable_folder(path: Path) -> None:
    """Make a directory on the host that Portage can write to when it is mounted in a chroot."""
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, PORTAGE_ID, PORTAGE_ID)
    path.chmod(0o2775)
