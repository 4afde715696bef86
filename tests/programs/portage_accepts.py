"""Check packages with the Portage of a client; run by the client's Python.

python3 portage_accepts.py REQUEST.json; prints the verdicts. Nothing else of this project is
there. A client verifies a fetched package in two steps: BinpkgVerifier compares it with the
index's SIZE and digests, then portage.gpkg verifies signatures and Manifest before it uses it.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import tarfile
from pathlib import Path
from typing import Any

import portage  # type: ignore[import-not-found,unused-ignore]
from portage import gpkg
from portage.checksum import verify_all  # type: ignore[import-not-found,unused-ignore]
from portage.exception import PortageException  # type: ignore[import-not-found,unused-ignore]

# portage.gpkg raises these for a damaged container; emerge ends with a traceback
REFUSALS = (PortageException, tarfile.TarError, ValueError, KeyError, EOFError, OSError)


def index_accepts(path: Path, digests: dict[str, Any]) -> bool:
    """Verify as BinpkgVerifier and bintree.digestCheck do."""
    return bool(verify_all(str(path), digests)[0])


def signature_accepts(path: Path) -> bool:
    """Verify as emerge does for a binhost with verify-signature = true."""
    package = gpkg.gpkg(portage.settings, gpkg_file=str(path), verify_signature=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            package._verify_binpkg()
    except REFUSALS:
        return False
    return True


def flip_bits(request: dict[str, Any]) -> dict[str, int]:
    """Flip one bit of one byte at a time; count the files that each check accepted."""
    good = Path(request["package"]).read_bytes()
    dice = random.Random(request["seed"])  # noqa: S311 - places, not secrets
    places = dice.sample(range(len(good)), request["flips"])
    counts = {"flips": 0, "index": 0, "signature": 0, "both": 0}
    path = Path("/tmp/flipped.gpkg.tar")
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << dice.randrange(8)
        path.write_bytes(bad)
        index, signature = index_accepts(path, request["digests"]), signature_accepts(path)
        counts["flips"] += 1
        counts["index"] += index
        counts["signature"] += signature
        counts["both"] += index and signature
    return counts


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Check the signatures of `packages`, and `package` with flipped bits."""
    packages = {path: signature_accepts(Path(path)) for path in request["packages"]}
    index = index_accepts(Path(request["package"]), request["digests"])
    return {"packages": packages, "whole": index, **flip_bits(request)}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
