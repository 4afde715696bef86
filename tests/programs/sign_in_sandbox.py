"""Signs every file of a folder in a sandbox.

python -m tests.programs.sign_in_sandbox GNUPGHOME FOLDER KEY
"""

from __future__ import annotations

import sys
from pathlib import Path

from tasks.publish import sign
from tasks.system.sandbox import Bind, Sandbox, workspace


def main(home: str, folder: Path, key: str) -> None:
    """The root inside is this machine's."""
    with workspace(folder.parent / "work", "sign", folder.parent / "trash") as space:
        binds = (
            Bind(home, sign.KEY_HOME, writable=True),
            Bind(str(folder), sign.PACKAGES, writable=True),
        )
        sandbox = Sandbox("sign", (Path("/"),), space, binds, {"PATH": "/usr/bin:/bin"})
        names = sorted(path.name for path in folder.iterdir())
        sign.sign_files(sandbox, folder, names, key, folder.parent / "log")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
