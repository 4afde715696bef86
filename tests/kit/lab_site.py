"""A site on the lab, with the real Portage, and the ways to use it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli
import tomli_w

from lab import mirror, site, upstream
from tasks import journal
from tasks.journal import TaskEnded, TaskRun
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
        """Override keys in tables of config.toml: change(**{"chroots.java": {"use": [...]}})."""
        raw = tomli.loads(self.layout.config.read_text())
        for table, keys in tables.items():
            place = raw
            for part in table.split("."):
                place = place.setdefault(part, {})
            place.update(keys)
        self.layout.config.write_text(tomli_w.dumps(raw))

    def last_run(self) -> dict[str, TaskRun]:
        """The newest run that did something, by task."""
        return {run.task: run for run in journal.task_runs(self.layout.logs / "latest")}

    def error(self, task: str) -> TaskEnded:
        """The end of a task that failed in the newest run."""
        ended = self.last_run()[task].ended
        assert ended is not None
        assert ended.outcome == "failed"
        return ended

    def records(self) -> dict[str, str]:
        """Every record's text by task file name."""
        folder = self.layout.state / "records"
        return {path.stem: path.read_text() for path in sorted(folder.glob("*.json"))}


@contextmanager
def lab_site_in(built_lab: Path, folder: Path) -> Iterator[LabSite]:
    """A site below a folder on which nothing has run, and its mirror, which runs for the block.

    The mirror is a copy of the lab on day 1; its large files are hard links.
    """
    lab = upstream.Upstream(folder / "lab")
    original = upstream.Upstream(built_lab)
    shutil.copytree(original.upstream, lab.upstream, copy_function=os.link, symlinks=True)
    for repository in (original.tree, original.overlay):  # git must not write through the links
        copy = lab.upstream / repository.relative_to(original.upstream)
        shutil.rmtree(copy)
        shutil.copytree(repository, copy)
    shutil.rmtree(lab.tree)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", lab.tree], check=True)
    second = lab.facts().days[1]
    lab.upcoming.mkdir(parents=True, exist_ok=True)
    for file in lab.snapshots.glob(f"gentoo-{second}.*"):
        file.rename(lab.upcoming / file.name)
    home = folder / "site"
    with mirror.serving(lab.directory, 0) as address:
        site.write_config(lab.directory, int(address.rsplit(":", 1)[1]), home)
        lab_site = LabSite(Layout(site=home, state=home / "state"), lab.directory)
        without_groups(lab_site.layout.config, f"{address}/local")
        lab_site.change(**{"chroots.base": {"packages": BASE_SET}})
        yield lab_site


def without_groups(config: Path, local: str) -> None:
    """Remove groups from the demo's config (see test_groups); restricted files are in `local`."""
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
