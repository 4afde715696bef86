"""A site for the lab: the shipped config.toml with the lab's URLs, keys and packages.

The key that signs its packages has no passphrase. Its certificate for TLS comes from a CA of the
lab that only clients of the lab trust.
"""

from __future__ import annotations

from pathlib import Path

from lab.overlay import BRANCH
from lab.upstream import ARCH, FLAVOUR, PROFILE, SOURCES, Upstream
from tasks.system.command import run
from tasks.system.files import write_atomic


def write_config(directory: Path, port: int, site: Path) -> Path:
    """Write SITE/config.toml from lab/sources/config.toml.in, and return its path.

    `@NAME@` in the template stands for one of the values below. Raises Stale without a lab.
    """
    lab = Upstream(directory.resolve())
    fingerprints = lab.facts().fingerprints
    certificate, certificate_key = server_certificate(site / "secrets" / "tls")
    values = {
        "MIRROR": f"http://127.0.0.1:{port}",
        "ARCH": ARCH,
        "FLAVOUR": FLAVOUR,
        "PROFILE": PROFILE,
        "TREE_REMOTE": str(lab.tree),
        "OVERLAY": str(lab.overlay),
        "OVERLAY_BRANCH": BRANCH,
        "SNAPSHOTS_KEY": str(lab.key("snapshots")),
        "SNAPSHOTS_FINGERPRINT": fingerprints["snapshots"],
        "STAGES_KEY": str(lab.key("stages")),
        "STAGES_FINGERPRINT": fingerprints["stages"],
        "SIGNING_KEY": signing_key(site / "secrets" / "gnupg"),
        "CERTIFICATE": str(certificate.relative_to(site)),
        "CERTIFICATE_KEY": str(certificate_key.relative_to(site)),
    }
    text = (SOURCES / "config.toml.in").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    target = site / "config.toml"
    if not target.exists() or target.read_text() != text:
        write_atomic(target, text)
    return target


def signing_key(home: Path) -> str:
    """Return the fingerprint of the site's signing key, which the first call generates."""
    marker = home / "fingerprint"
    if not marker.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        gpg = ("gpg", "--homedir", home, "--batch", "--no-tty")
        run(
            *gpg,
            "--passphrase",
            "",
            "--quick-gen-key",
            "binmill lab binhost",
            "ed25519",
            "sign",
            "never",
            timeout=600,
        )
        keys = run(*gpg, "--with-colons", "--list-secret-keys", timeout=60).stdout
        run("gpgconf", "--homedir", home, "--kill", "all", timeout=60)
        write_atomic(marker, next(x for x in keys.splitlines() if x[:3] == "fpr").split(":")[9])
    return marker.read_text()


def server_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files of the site's certificate for 127.0.0.1 and of its key.

    The first call generates them and their CA; clients of the lab trust `ca.pem` beside them.
    """
    certificate, key = folder / "server.pem", folder / "server.key"
    if not certificate.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("ca.key", "server.key"):
            private_key = run(
                "openssl",
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                timeout=60,
            )
            write_atomic(folder / name, private_key.stdout, mode=0o600)
        request = ("openssl", "req", "-config", "/dev/null", "-x509", "-sha256", "-days", "3650")
        authority = run(
            *request,
            "-key",
            folder / "ca.key",
            "-subj",
            "/CN=binmill lab CA",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            timeout=60,
        )
        write_atomic(folder / "ca.pem", authority.stdout)
        leaf = run(
            *request,
            "-key",
            key,
            "-subj",
            "/CN=binmill lab",
            "-CA",
            folder / "ca.pem",
            "-CAkey",
            folder / "ca.key",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            timeout=60,
        )
        write_atomic(certificate, leaf.stdout)
    return certificate, key
