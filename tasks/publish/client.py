"""A client: a fresh chroot from the same seed that installs a set from the published binhost."""

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
VARIABLES = {"PORTAGE_TRUST_HELPER": "/bin/true"}  # our key only; getuto(1) would add Gentoo's
BUNDLE = "/run/binmill/bundle"  # where its bundle is mounted
# A client that is thrown away need not wait for the disk, and may merge side by side.
FEATURES = ("-merge-sync", "-merge-wait", "parallel-install")


def binrepos(name: str, url: str, fetch: str = "", resume: str = "") -> str:
    """binrepos.conf of a client, which refuses what is not signed (portage(5)).

    With `fetch` and `resume` these commands fetch, the index too.
    """
    text = f"\n[{name}]\npriority = 9999\nsync-uri = {url}\nverify-signature = true\n"
    return text + (f"fetchcommand = {fetch}\nresumecommand = {resume}\n" if fetch else "")


def keyring(public_key: bytes, fingerprint: str, home: Path) -> None:
    """A GnuPG home with one trusted key; readable by all, since Portage verifies as nobody.

    It is made at a short path: gpg fails where its agent's socket would have more than 107 bytes
    (unix(7)), also when it needs no agent.
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
    """The emerge(1) call of a client: binary packages from the binhost, and nothing else."""
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


def check(room: Sandbox, url: str, name: str, group: str, fingerprint: str) -> None:
    """Run the bundle's own check inside; raises NotTrusted with what it says."""
    words = ["sh", f"{BUNDLE}/check", url, name, group, fingerprint, f"{BUNDLE}/key.gpg"]
    done = sandbox.run(room, words, timeout=1800, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().split("\n")[-1]
        raise NotTrusted(f"a client's check of {url} says: {said[:300]}", "docs/clients.md")


def install(room: Sandbox, packages: Sequence[str], log: Path) -> list[str]:
    """Install `packages` inside; returns every CPV that was installed, sorted."""
    start = log.stat().st_size if log.exists() else 0
    try:
        sandbox.run(room, command(packages), log=log, timeout=3600)
    except CommandFailed as failed:
        said = reason(said_since(log, start)) or failed.message
        raise BinmillError(
            f"a client could not install from the binhost of {room.hostname}: {said}", f"read {log}"
        ) from failed
    return sorted(f"{entry.parent.name}/{entry.name}" for entry in installed(room.upper))


def refused(room: Sandbox, who: str, packages: Sequence[str], log: Path) -> None:
    """Let a client try what it may not; raises BinmillError if it is not refused."""
    start = log.stat().st_size if log.exists() else 0
    done = sandbox.run(room, command(packages), log=log, timeout=3600, check=False)
    got = sorted(path.name for path in (room.upper / "var/db/pkg").glob("*/*"))
    if done.returncode == 0 or got:
        raise BinmillError(
            f"{who} was not refused by the binhost of {room.hostname}, and installed: "
            f"{', '.join(got[:5]) or 'nothing'}",
            f"stop serving it; read {log}",
        )
    if " 401 " not in said_since(log, start):
        raise BinmillError(
            f"{who} got nothing of {room.hostname}, but not because it was refused", f"read {log}"
        )
