"""Freeze one archive that is taken for verified: python -m bench.freeze_one REPO FILE SHA512.

The digest is what verification leaves behind; the other ways in the table verify nothing either.
Prints the commit, how many files changed, and how many seconds the step of freezing took: what
`doit snapshot` has done before that (start, look up the newest frozen day) is not in them.
"""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tasks.snapshot.download import VerifiedArchive
from tasks.snapshot.freeze import freeze_archive
from tasks.snapshot.frozen_days import newest
from tasks.system.gpgv import Signature

if __name__ == "__main__":
    repository, archive, digest = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    found = re.search("[0-9]{8}", archive.name)
    day = datetime.strptime(found[0] if found else "", "%Y%m%d").replace(tzinfo=UTC).date()
    with archive.open("rb") as stream:
        verified = VerifiedArchive(
            archive, stream, "http://mirror.example/", digest, Signature("A" * 40, 0)
        )
        newest(repository)
        start = time.perf_counter()
        done = freeze_archive(repository, verified, day, "gentoo")
        took = time.perf_counter() - start
    print(done.frozen.commit, done.changed, f"{took:.3f}")
