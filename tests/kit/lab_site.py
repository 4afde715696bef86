"""A site on the lab, with the real Portage, and the ways to use it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomli
import tomli_w

from tasks.layout import Layout
from tasks.site import CONFIG_VARIABLE
from tests.kit.project import DOIT, PROJECT

# Enough for every kind: an autotools library with USE flags, a build tool, a package that fails
# if it sees a network, a subslot consumer, a fetch-restricted one (jattach, by java-tools).
BASE_SET = ["app-misc/hello", "app-misc/nosy", "app-text/dos2unix", "dev-libs/libyaml"]


@dataclass(frozen=True)
class LabSite:
    """A site whose config points at the lab, and the ways to use it."""

    layout: Layout
    lab: Path

    def start(self, *words: str, before: Sequence[str] = (), **more: str) -> subprocess.Popen[str]:
        """doit as a person would start it, after a command; output is captured as text."""
        return subprocess.Popen(
            [*before, DOIT, *words],
            cwd=PROJECT,
            env={**os.environ, CONFIG_VARIABLE: str(self.layout.config), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def doit(self, *words: str, code: int = 0, before: Sequence[str] = (), **more: str) -> str:
        """Run doit to its end and return what it printed; the exit code must be `code`."""
        process = self.start(*words, before=before, **more)
        printed, _ = process.communicate(timeout=1500)
        assert process.returncode == code, printed
        return printed

    def change(self, **tables: Mapping[str, object]) -> None:
        """Lay keys over tables of config.toml: change(**{"chroots.java": {"use": [...]}})."""
        raw = tomli.loads(self.layout.config.read_text())
        for table, keys in tables.items():
            place = raw
            for part in table.split("."):
                place = place.setdefault(part, {})
            place.update(keys)
        self.layout.config.write_text(tomli_w.dumps(raw))

    def records(self) -> dict[str, str]:
        """Every record's text by task file name."""
        folder = self.layout.state / "records"
        return {path.stem: path.read_text() for path in sorted(folder.glob("*.json"))}


def without_groups(config: Path, local: str) -> None:
    """The demo's config without what test_groups is about: restricted files come from `local`."""
    raw = tomli.loads(config.read_text())
    for table in ("access", "mirror", "serve"):
        raw.pop(table, None)
    raw["chroots"]["java"].pop("groups", None)
    raw["mirrors"]["local"] = [local]
    config.write_text(tomli_w.dumps(raw))


def tasks_run(printed: str) -> set[str]:
    """The tasks that a run carried out, from the reporter's lines."""
    lines = [line for line in printed.splitlines() if line and not line.startswith(" ")]
    names = {line.split(": ", 1)[0] for line in lines if ": " in line}
    return {name for name in names if name not in ("failed", "nothing to do")}
