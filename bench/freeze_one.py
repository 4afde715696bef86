"""Freeze one archive as if it had been verified: python -m bench.freeze_one REPO FILE SHA512.

The other ways in the table verify nothing either. Prints the commit, the number of changed files,
and the seconds of the freezing itself, without what `doit snapshot` does before (start, look up
the newest frozen day).
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
    match = re.search("[0-9]{8}", archive.name)
    day = datetime.strptime(match[0] if match else "", "%Y%m%d").replace(tzinfo=UTC).date()
    with archive.open("rb") as stream:
        signature = Signature("A" * 40, 0)
        verified = VerifiedArchive(archive, stream, "http://mirror.example/", digest, signature)
        newest(repository)
        start = time.perf_counter()
        result = freeze_archive(repository, verified, day, "gentoo")
        duration = time.perf_counter() - start
    print(result.frozen.commit, result.changed, f"{duration:.3f}")
