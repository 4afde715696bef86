"""Trees with Manifests of the real one's shape."""

from __future__ import annotations

import gzip
import hashlib
from datetime import UTC, datetime

from tests.kit.gpg import Gpg
from tests.kit.snapshots import DAY, made_at

Files = dict[str, bytes]
MADE = made_at(DAY)
ONE = "app-misc/one"
PACKAGE = {
    "EBUILD one-1.ebuild": b"EAPI=8\n",
    "MISC metadata.xml": b"<pkgmetadata/>\n",
    "AUX fix.patch": b"--- a\n",
}


def lines(files: Files, *hashes: str) -> bytes:
    """Lines of a Manifest (GLEP 74); a key is a tag and a name."""

    def line(key: str, data: bytes) -> str:
        found = (
            f"{name} {hashlib.new(name.lower(), data, usedforsecurity=False).hexdigest()}"
            for name in hashes or ("BLAKE2B", "SHA512")
        )
        return " ".join((key, str(len(data)), *found)) + "\n"

    return "".join(line(key, data) for key, data in files.items()).encode()


def stamp(seconds: int) -> bytes:
    return f"TIMESTAMP {datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode()


def packed(text: bytes) -> bytes:
    return gzip.compress(text, mtime=0)


def unsigned(
    package: bytes | None = None, more: Files | None = None, ignored: bytes = b""
) -> tuple[Files, bytes]:
    """The files of a tree, as the real one has them, and what its top Manifest has to say."""
    news = packed(lines({"DATA a/a.txt": b"news\n"}))
    files = {
        f"{ONE}/one-1.ebuild": PACKAGE["EBUILD one-1.ebuild"],
        f"{ONE}/metadata.xml": PACKAGE["MISC metadata.xml"],
        f"{ONE}/files/fix.patch": PACKAGE["AUX fix.patch"],
        f"{ONE}/Manifest": lines(PACKAGE) if package is None else package,
        "profiles/repo_name": b"gentoo\n",
        "metadata/layout.conf": b"masters =\n",
        "metadata/timestamp.x": b"%d and so on\n" % MADE,
        "metadata/.checksum-test-marker": b"1700000000 in no Manifest\n",
        "metadata/news/a/a.txt": b"news\n",
        "metadata/news/Manifest.files.gz": news,
        "metadata/news/Manifest": b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n"
        + lines({"MANIFEST Manifest.files.gz": news})
        + b"-----BEGIN PGP SIGNATURE-----\n\nnot read\n-----END PGP SIGNATURE-----\n",
    }
    files["metadata/Manifest.gz"] = packed(
        b"IGNORE timestamp.x\n"
        + lines(
            {
                "DATA layout.conf": files["metadata/layout.conf"],
                "MANIFEST news/Manifest": files["metadata/news/Manifest"],
            }
        )
    )
    listed = {
        f"MANIFEST {ONE}/Manifest": files[f"{ONE}/Manifest"],
        "MANIFEST metadata/Manifest.gz": files["metadata/Manifest.gz"],
        "DATA profiles/repo_name": files["profiles/repo_name"],
    }
    files["Manifest.files.gz"] = packed(ignored + lines({**listed, **(more or {})}))
    return files, lines({"MANIFEST Manifest.files.gz": files["Manifest.files.gz"]})


def sealed(gpg: Gpg, top: bytes, *how: str, who: str = "good", at: int = MADE) -> bytes:
    return gpg.sign(*how, "--clear-sign", who=who, data=top + stamp(at))
