"""A small site as version 0.1 left it: frozen day, lock, seed, chroots, a set, two generations.

The archive was written by version 0.1 at /tmp/binmill-0.1-site; doit's database has that
path in it.
"""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

from tasks.layout import Layout

ARCHIVE = Path(__file__).with_name("site_0_1.tar.xz")
_PLACE = "/tmp/binmill-0.1-site"


def unpack(folder: Path) -> Layout:
    """Unpack the site as `folder`, as if it had been built there."""
    folder.mkdir()
    subprocess.run(
        [
            *("tar", "--extract", "--same-owner", "--preserve-permissions", "--numeric-owner"),
            *("--xattrs", "--xattrs-include=*.*", "--strip-components=1"),
            *("-C", folder, "-f", ARCHIVE),
        ],
        check=True,
    )
    layout = Layout(site=folder, state=folder / "state")
    with sqlite3.connect(layout.database) as database:
        database.execute(
            "update doit set task_data = replace(task_data, ?, ?)", (_PLACE, str(folder))
        )
    database.close()
    return layout
