"""A client: a chroot that installs packages from the published binhost, or upgrades to them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tasks.errors import BinmillError, CommandFailed, NotTrusted
from tasks.portage import vdb
from tasks.portage.emerge import first_failure, output_since
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox

VARIABLES = {"PORTAGE_TRUST_HELPER": "/bin/true"}  # only our key; getuto(1) would add Gentoo's
BUNDLE = "/run/binmill/bundle"  # where the bundle is mounted inside
# A throwaway client does not wait for the disk, and merges in parallel.
FEATURES = ("-merge-sync", "-merge-wait", "parallel-install")
# As docs/clients.md tells clients: also what the seed has already.
UPDATE = ("--update", "--deep", "--newuse", "--rebuilt-binaries")


def binrepos(name: str, url: str, fetch: str = "", resume: str = "") -> str:
    """binrepos.conf of a client that refuses unsigned packages (portage(5)).

    `fetch` and `resume` are commands that fetch packages and index instead of Portage.
    """
    text = f"\n[{name}]\npriority = 9999\nsync-uri = {url}\nverify-signature = true\n"
    return text + (f"fetchcommand = {fetch}\nresumecommand = {resume}\n" if fetch else "")


def command(packages: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """The emerge(1) call of a client: binary packages from the binhost only."""
    return [
        "emerge",
        *options,
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
    """Install packages in a fresh client; returns every CPV that was installed, sorted."""
    start = log.stat().st_size if log.exists() else 0
    try:
        sandbox.run(client, command(packages, UPDATE), log=log, timeout=3600)
    except CommandFailed as error:
        cause = first_failure(output_since(log, start)) or error.message
        raise install_failed(client, cause, log) from error
    return sorted(f"{entry.parent.name}/{entry.name}" for entry in vdb.entries(client.upper))


def install_failed(client: Sandbox, cause: str, log: Path) -> BinmillError:
    """The error of a client that could not install or upgrade."""
    return BinmillError("client-install-failed", chroot=client.hostname, cause=cause, log=log)


def expect_refusal(client: Sandbox, user: str, packages: Sequence[str], log: Path) -> None:
    """Try an installation that must be refused; raises BinmillError if it is not."""
    start = log.stat().st_size if log.exists() else 0
    result = sandbox.run(client, command(packages), log=log, timeout=3600, check=False)
    names = sorted(path.name for path in (client.upper / vdb.DATABASE).glob("*/*"))
    if result.returncode == 0 or names:
        raise BinmillError(
            "client-not-refused",
            user=user,
            chroot=client.hostname,
            packages=names or ["nothing"],
            log=log,
        )
    if " 401 " not in output_since(log, start):
        raise BinmillError("client-failed-otherwise", user=user, chroot=client.hostname, log=log)
