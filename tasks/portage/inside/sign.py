"""Sign packages like gpkg-sign(1), in one process; the Python of a signing sandbox runs this file.

python3 sign.py LIST; LIST has the paths of the packages, each with a NUL at its end. gpkg-sign
signs one package per call, and loading Portage each time takes six times as long. It imports
Portage and the standard library only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import portage  # type: ignore[import-not-found,unused-ignore]
from portage import gpkg  # type: ignore[import-not-found,unused-ignore]


def main(listing: Path) -> None:
    """Sign each package in place; exits with the path and reason of one that cannot be signed."""
    for path in listing.read_text(encoding="utf-8").split("\0")[:-1]:
        try:
            package = gpkg.gpkg(settings=portage.settings, gpkg_file=path)
            package.request_signature = False  # gpkg-sign --allow-unsigned
            package.update_signature()
        except portage.exception.PortageException as error:
            raise SystemExit(f"{path}: {type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
