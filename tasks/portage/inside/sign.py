"""Run inside a signing sandbox, by its Python: sign packages as gpkg-sign(1) does, in one process.

python3 sign.py LIST; LIST has the packages' paths, each ended by a NUL. gpkg-sign
takes one package a call, and each call loads all of Portage: six times as long. Nothing else of
this project is there: only Portage and the standard library.
"""

from __future__ import annotations

import sys
from pathlib import Path

import portage  # type: ignore[import-not-found,unused-ignore]
from portage import gpkg  # type: ignore[import-not-found,unused-ignore]


def main(listing: Path) -> None:
    """Sign each package in place; says which one could not be signed, and why."""
    for path in listing.read_text(encoding="utf-8").split("\0")[:-1]:
        try:
            package = gpkg.gpkg(settings=portage.settings, gpkg_file=path)
            package.request_signature = False  # gpkg-sign --allow-unsigned: it has none yet
            package.update_signature()
        except portage.exception.PortageException as error:
            raise SystemExit(f"{path}: {type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
