"""Trees with Manifests, in the shape of Gentoo's."""

from __future__ import annotations

import gzip
import hashlib
from datetime import UTC, datetime

from tests.kit.gpg import Gpg
from tests.kit.snapshots import DAY, snapshot_time

Files = dict[str, bytes]
SNAPSHOT_TIME = snapshot_time(DAY)
PACKAGE_DIR = "app-misc/one"
PACKAGE = {
    "EBUILD one-1.ebuild": b"EAPI=8\n",
    "MISC metadata.xml": b"<pkgmetadata/>\n",
    "AUX fix.patch": b"--- a\n",
}


def manifest_lines(files: Files, *hashes: str) -> bytes:
    """Lines of a Manifest (GLEP 74); a key is a tag and a name."""

    def line(key: str, data: bytes) -> str:
        digests = (
            f"{name} {hashlib.new(name.lower(), data, usedforsecurity=False).hexdigest()}"
            for name in hashes or ("BLAKE2B", "SHA512")
        )
        return " ".join((key, str(len(data)), *digests)) + "\n"

    return "".join(line(key, data) for key, data in files.items()).encode()


def timestamp_line(seconds: int) -> bytes:
    return f"TIMESTAMP {datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}\n".encode()


def gz(text: bytes) -> bytes:
    return gzip.compress(text, mtime=0)


def tree_files(
    package: bytes | None = None, more: Files | None = None, ignored: bytes = b""
) -> tuple[Files, bytes]:
    """The files of a tree in the shape of Gentoo's, and the text of its top Manifest."""
    news = gz(manifest_lines({"DATA a/a.txt": b"news\n"}))
    files = {
        f"{PACKAGE_DIR}/one-1.ebuild": PACKAGE["EBUILD one-1.ebuild"],
        f"{PACKAGE_DIR}/metadata.xml": PACKAGE["MISC metadata.xml"],
        f"{PACKAGE_DIR}/files/fix.patch": PACKAGE["AUX fix.patch"],
        f"{PACKAGE_DIR}/Manifest": manifest_lines(PACKAGE) if package is None else package,
        "profiles/repo_name": b"gentoo\n",
        "metadata/layout.conf": b"masters =\n",
        "metadata/timestamp.x": b"%d and so on\n" % SNAPSHOT_TIME,
        "metadata/.checksum-test-marker": b"1700000000 in no Manifest\n",
        "metadata/news/a/a.txt": b"news\n",
        "metadata/news/Manifest.files.gz": news,
        "metadata/news/Manifest": b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n"
        + manifest_lines({"MANIFEST Manifest.files.gz": news})
        + b"-----BEGIN PGP SIGNATURE-----\n\nnot read\n-----END PGP SIGNATURE-----\n",
    }
    files["metadata/Manifest.gz"] = gz(
        b"IGNORE timestamp.x\n"
        + manifest_lines(
            {
                "DATA layout.conf": files["metadata/layout.conf"],
                "MANIFEST news/Manifest": files["metadata/news/Manifest"],
            }
        )
    )
    listed = {
        f"MANIFEST {PACKAGE_DIR}/Manifest": files[f"{PACKAGE_DIR}/Manifest"],
        "MANIFEST metadata/Manifest.gz": files["metadata/Manifest.gz"],
        "DATA profiles/repo_name": files["profiles/repo_name"],
    }
    files["Manifest.files.gz"] = gz(ignored + manifest_lines({**listed, **(more or {})}))
    return files, manifest_lines({"MANIFEST Manifest.files.gz": files["Manifest.files.gz"]})


def signed_manifest(
    gpg: Gpg, top: bytes, *how: str, who: str = "good", at: int = SNAPSHOT_TIME
) -> bytes:
    return gpg.sign(*how, "--clear-sign", who=who, data=top + timestamp_line(at))
