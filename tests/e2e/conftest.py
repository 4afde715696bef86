"""The lab for end-to-end tests: one upstream for all, a mirror and a site of each module's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli
import tomli_w

from lab import build, mirror, site, upstream
from tasks.layout import Layout
from tasks.site import CONFIG_VARIABLE
from tasks.system.files import locked, mounts_below

PROJECT = Path(__file__).resolve().parents[2]
DOIT = Path(sys.executable).with_name("doit")
# Enough for every kind: an autotools library with USE flags, a build tool, a package that fails
# if it sees a network, a subslot consumer, a fetch-restricted one (jattach, by java-tools).
BASE_SET = ["app-misc/hello", "app-misc/nosy", "app-text/dos2unix", "dev-libs/libyaml"]


@dataclass(frozen=True)
class Factory:
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
    """The demo's config without what test_giving is about: restricted files come from `local`."""
    raw = tomli.loads(config.read_text())
    for table in ("access", "mirror", "serve"):
        raw.pop(table, None)
    raw["chroots"]["java"].pop("groups", None)
    raw["mirrors"]["local"] = [local]
    config.write_text(tomli_w.dumps(raw))


def ran(printed: str) -> set[str]:
    """The tasks that a run carried out, from the reporter's lines."""
    lines = [line for line in printed.splitlines() if line and not line.startswith(" ")]
    names = {line.split(": ", 1)[0] for line in lines if ": " in line}
    return {name for name in names if name not in ("failed", "nothing to do")}


def processes_of(place: Path) -> list[str]:
    """Command lines of living processes that work on `place`.

    Those that name a path below it, and those in a sandbox: their root is an overlay whose upper
    layer is below it (proc(5), mountinfo).
    """
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                mounts = (entry / "mountinfo").read_text(errors="replace")
            except OSError:
                continue
            if str(place) in words or f"upperdir={place}" in mounts:
                found.append(words.replace("\0", " "))
    return found


def left_by_a_kill(layout: Layout) -> list[str]:
    """Processes and mounts of a site once the kernel had its time to take the namespaces down."""
    deadline = time.monotonic() + 20
    while (left := processes_of(layout.state)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [*left, *map(str, mounts_below(layout.site))]


@pytest.fixture(scope="session")
def built_lab(needs_sandbox: None) -> Path:  # noqa: ARG001
    """The lab's upstream, built once per checkout, whoever of those that run tests comes first."""
    folder = upstream.default_directory()
    with locked(folder / "tests.lock", "the lab", wait=True):
        return build.build(folder).directory


@pytest.fixture(scope="module")
def factory(built_lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    """A site and a mirror of its own, with day 1 published, whatever was done to the shared lab."""
    place = tmp_path_factory.mktemp("factory")
    lab = upstream.Upstream(place / "lab")
    original = upstream.Upstream(built_lab)
    shutil.copytree(original.upstream, lab.upstream, copy_function=os.link, symlinks=True)
    # git must not write through the links, and every module's lab begins on day 1
    for repository in (original.tree, original.overlay):
        copy = lab.upstream / repository.relative_to(original.upstream)
        shutil.rmtree(copy)
        shutil.copytree(repository, copy)
    shutil.rmtree(lab.tree)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", lab.tree], check=True)
    second = lab.facts()["days"][1]
    lab.upcoming.mkdir(parents=True, exist_ok=True)
    for file in lab.snapshots.glob(f"gentoo-{second}.*"):
        file.rename(lab.upcoming / file.name)
    home = place / "site"
    with mirror.serving(lab.directory, 0) as address:
        site.write_config(lab.directory, int(address.rsplit(":", 1)[1]), home)
        made = Factory(Layout(site=home, state=home / "state"), lab.directory)
        without_groups(made.layout.config, f"{address}/local")
        made.change(**{"chroots.base": {"packages": BASE_SET}})
        yield made
