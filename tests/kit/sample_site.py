"""A small upstream and a site of it, for the real doit: everything that needs no Portage inside.

Yesterday's snapshot, an overlay, a stage of a few files, all signed and on loopback. Every task
up to /etc/portage runs in about three seconds in all.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import tomli_w

from tasks.layout import Layout
from tasks.system.files import sha512
from tests.kit.gpg import Keys
from tests.kit.project import DOIT, PROJECT
from tests.kit.scripted_server import ScriptedServer, file
from tests.kit.snapshots import FILES, snapshot, snapshot_time
from tests.kit.stages import pack_stage, sample_stage

# The newest day that is published (see snapshot_time) and signed: from 01:00 UTC on.
YESTERDAY = (datetime.now(UTC) - timedelta(days=1, hours=1)).date()
STAGE = "20260101T000000Z/stage3-amd64-openrc-20260101T000000Z.tar.xz"
# The tasks that run without Portage, in the order of the flow.
ON_DEMAND = ("snapshot", "lock")
TASKS = ("tree", "overlay", "seed", "chroot", "etc")


@dataclass(frozen=True)
class SampleUpstream:
    """The upstream of the sample site: a mirror on loopback and a git repository."""

    folder: Path
    server: ScriptedServer
    keys: Keys

    def publish(self) -> None:
        """Publish yesterday's snapshot and a stage on the mirror; create the overlay."""
        self.folder.mkdir()
        self.day(YESTERDAY)
        tarball = pack_stage(sample_stage(self.folder / "stage"), self.folder / "stage3.tar.xz")
        name = Path(STAGE).name
        digests = f"# SHA512 HASH\n{sha512(tarball)}  {name}\n"
        self._stage("latest-stage3-amd64-openrc.txt", f"{STAGE} {tarball.stat().st_size}\n")
        self._stage(f"{STAGE}.DIGESTS", digests)
        self.server.url(f"/releases/amd64/autobuilds/{STAGE}", file(tarball.read_bytes()))
        overlay = self.folder / "overlay"
        for words in (
            ("init", "-q", "-b", "main", overlay),
            ("-C", overlay, "config", "user.email", "x@test.example"),
            ("-C", overlay, "config", "user.name", "x"),
        ):
            subprocess.run(["git", *words], check=True)
        for path, text in (("profiles/repo_name", "java\n"), ("dev-java/a/a-1.ebuild", "EAPI=8\n")):
            (overlay / path).parent.mkdir(parents=True, exist_ok=True)
            (overlay / path).write_text(text)
        subprocess.run(["git", "-C", overlay, "add", "-A"], check=True)
        subprocess.run(["git", "-C", overlay, "commit", "-q", "-m", "x"], check=True)

    def day(self, day: date) -> None:
        """Publish a day's snapshot on the mirror."""
        files = {**FILES, "app-misc/one/one-1.ebuild": f"EAPI=8\n# {day}\n".encode()}
        archive = snapshot(self.folder, day, files=files).read_bytes()
        seal = self.keys.sign(who="good", data=archive, at=snapshot_time(day) + 900)
        place = f"/snapshots/gentoo-{day:%Y%m%d}.tar.xz"
        self.server.url(place, file(archive))
        self.server.url(f"{place}.gpgsig", file(seal))

    def _stage(self, path: str, text: str) -> None:
        signed = self.keys.sign("--clear-sign", who="good", data=text.encode())
        self.server.url(f"/releases/amd64/autobuilds/{path}", file(signed))

    def config(self) -> dict[str, Any]:
        """The config of a site that uses it."""
        key = {"file": str(self.keys.ring), "fingerprints": [self.keys.fingerprint("good")]}
        return {
            "keys": {"gentoo": key},
            "mirrors": {"gentoo": [self.server.url("")]},
            "tree": {"key": "gentoo", "lookback_days": 3},
            "overlays": {"java": {"url": str(self.folder / "overlay"), "branch": "main"}},
            "seeds": {"openrc": {"flavour": "openrc", "key": "gentoo"}},
            "chroots": {
                "base": {"seed": "openrc", "profile": "default/linux"},
                "java": {"base": "base", "overlays": ["java"]},
            },
        }


@dataclass(frozen=True)
class SampleSite:
    """A site, and ways to run doit on it."""

    layout: Layout

    def write(self, config: Mapping[str, Any]) -> None:
        self.layout.site.mkdir(parents=True, exist_ok=True)
        self.layout.config.write_text(tomli_w.dumps(config))

    def start(self, *words: str, prefix: tuple[str | Path, ...] = ()) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        return subprocess.Popen(
            [*prefix, DOIT, *words],
            cwd=PROJECT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environment, "BINMILL_CONFIG": str(self.layout.config)},
        )

    def doit(self, *words: str, code: int = 0, prefix: tuple[str | Path, ...] = ()) -> str:
        """Run doit to its end; the exit code must be `code`, and nothing a traceback."""
        with self.start(*words, prefix=prefix) as process:
            printed, _ = process.communicate(timeout=300)
        assert process.returncode == code, printed
        assert "Traceback" not in printed
        return printed

    def make(self) -> str:
        """Everything that needs no Portage."""
        return self.doit(*ON_DEMAND) + self.doit(*TASKS)

    def records(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.layout.records.glob("*.json")}


def sample_site(folder: Path) -> SampleSite:
    """A site in a folder."""
    return SampleSite(Layout(site=folder, state=folder / "state"))


def tasks_run(printed: str) -> set[str]:
    """The tasks that a run carried out, from the reporter's lines."""
    lines = [line for line in printed.splitlines() if line and not line.startswith(" ")]
    return {line.split(": ", 1)[0] for line in lines if ": " in line} - {"failed", "nothing to do"}
