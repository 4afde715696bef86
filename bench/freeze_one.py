"""Freeze one archive whose signature is taken for granted: python -m bench.freeze_one REPO FILE."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from tasks.snapshot.freeze import freeze
from tasks.snapshot.mirror import Tarball
from tasks.system.files import digests_of
from tasks.system.gpgv import Signature

if __name__ == "__main__":
    repository, archive = Path(sys.argv[1]), Path(sys.argv[2])
    found = re.search("[0-9]{8}", archive.name)
    day = datetime.strptime(found[0] if found else "", "%Y%m%d").replace(tzinfo=UTC).date()
    with archive.open("rb") as stream:
        digest = digests_of(stream, "sha512")["sha512"]
        tarball = Tarball(archive, stream, "http://mirror.example/", digest, Signature("A" * 40, 0))
        done = freeze(repository, tarball, day, "gentoo")
    print(done.frozen.commit, done.changed)
