"""A client: a fresh chroot from the seed that installs packages from the published binhost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tasks.errors import BinmillError, CommandFailed, NotTrusted
from tasks.portage.emerge import installed, reason, said_since
from tasks.system import sandbox
from tasks.system.command import run
from tasks.system.sandbox import Sandbox

GNUPG = "gnupg"  # below /etc/portage: BINPKG_GPG_VERIFY_GPG_HOME's default
VARIABLES = {"PORTAGE_TRUST_HELPER": "/bin/true"}  # only our key; getuto(1) would add Gentoo's
BUNDLE = "/run/binmill/bundle"  # where the bundle is mounted inside
# A throwaway client does not wait for the disk, and merges in parallel.
FEATURES = ("-merge-sync", "-merge-wait", "parallel-install")


def binrepos(name: str, url: str, fetch: str = "", resume: str = "") -> str:
    """binrepos.conf of a client that refuses unsigned packages (portage(5)).

    `fetch` and `resume` are commands that fetch packages and index instead of Portage.
    """
    text = f"\n[{name}]\npriority = 9999\nsync-uri = {url}\nverify-signature = true\n"
    return text + (f"fetchcommand = {fetch}\nresumecommand = {resume}\n" if fetch else "")


def keyring(public_key: bytes, fingerprint: str, home: Path) -> None:
    """Write a GnuPG home with one trusted key, readable by all: Portage verifies as `nobody`.

    gpg works at a short path first: it fails where the path of its agent's socket exceeds 107
    bytes (unix(7)), even if it needs no agent.
    """
    with tempfile.TemporaryDirectory(prefix="binmill-gpg-") as short:
        options = ("gpg", "--homedir", short, "--batch", "--no-autostart")
        run(*options, "--import", input=public_key, timeout=60)
        run(*options, "--import-ownertrust", input=f"{fingerprint}:6:\n".encode(), timeout=60)
        run(*options, "--check-trustdb", timeout=60)  # else Portage sees TRUST_UNDEFINED
        shutil.copytree(short, home)
    home.chmod(0o755)
    for path in home.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def command(packages: Sequence[str]) -> list[str]:
    """The emerge(1) call of a client: binary packages from the binhost only."""
    return [
        "emerge",
        "--verbose",
        "--color=n",
        "--nospinner",
        "--getbinpkg",
        "--usepkgonly",
        "--with-bdeps=n",
        f"--jobs={os.cpu_count()}",
        "@world",
        *sorted(packages),
    ]


def check(client: Sandbox, url: str, name: str, group: str, fingerprint: str) -> None:
    """Run the bundle's own check inside; raises NotTrusted with its last line of output."""
    words = ["sh", f"{BUNDLE}/check", url, name, group, fingerprint, f"{BUNDLE}/key.gpg"]
    result = sandbox.run(client, words, timeout=1800, check=False)
    if result.returncode != 0:
        last = (result.stderr or result.stdout).strip().split("\n")[-1]
        raise NotTrusted("client-check-refused", url=url, cause=last[:300])


def install(client: Sandbox, packages: Sequence[str], log: Path) -> list[str]:
    """Install packages inside; returns every CPV that was installed, sorted."""
    start = log.stat().st_size if log.exists() else 0
    try:
        sandbox.run(client, command(packages), log=log, timeout=3600)
    except CommandFailed as failed:
        cause = reason(said_since(log, start)) or failed.message
        raise BinmillError(
            "client-install-failed", chroot=client.hostname, cause=cause, log=log
        ) from failed
    return sorted(f"{entry.parent.name}/{entry.name}" for entry in installed(client.upper))


def refused(client: Sandbox, user: str, packages: Sequence[str], log: Path) -> None:
    """Try an installation that must be refused; raises BinmillError if it is not."""
    start = log.stat().st_size if log.exists() else 0
    result = sandbox.run(client, command(packages), log=log, timeout=3600, check=False)
    names = sorted(path.name for path in (client.upper / "var/db/pkg").glob("*/*"))
    if result.returncode == 0 or names:
        raise BinmillError(
            "client-not-refused",
            user=user,
            chroot=client.hostname,
            packages=names or ["nothing"],
            log=log,
        )
    if " 401 " not in said_since(log, start):
        raise BinmillError("client-failed-otherwise", user=user, chroot=client.hostname, log=log)
