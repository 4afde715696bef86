"""A root of a few programs, and a site whose chroots use it, without mirror or Portage.

The tasks before a chroot (snapshot, lock, tree, seed) count as done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doit.control import TaskControl
from doit.dependency import Dependency, JSONCodec
from doit.loader import generate_tasks

from tasks import graph, records
from tasks.config import load
from tasks.engine.backend import DurableBackend
from tasks.layout import Layout
from tasks.records import LOCK, SEED, SNAPSHOT, TREE, Key, SeedRecord, SnapshotRecord, TreeRecord
from tasks.site import Site
from tests.kit.project import PROJECT

PROGRAMS = ("sh", "cat", "rm", "ls", "true")
SITE_PROGRAMS = (
    *PROGRAMS,
    "bash",
    "env",
    "readlink",
    "setsid",
    "sleep",
    "stty",
    "touch",
    "mkdir",
    "mv",
    "ln",
    "chmod",
    "head",
    "tail",
)
COMMIT, SEED_DIGEST = "b" * 40, "a" * 128
CONFIG = f"""
[keys.k]
file = "k.asc"
fingerprints = ["{"A" * 40}"]
[mirrors]
gentoo = ["http://127.0.0.1:1"]
[tree]
key = "k"
[seeds.tiny]
flavour = "tiny"
key = "k"
[chroots.base]
seed = "tiny"
profile = "default"
[chroots.java]
base = "base"
[chroots.appliance]
base = "java"
"""
LOCK_TEXT = f"""
version = 1
[tree]
tag = "20260310"
commit = "{COMMIT}"
[seeds.tiny]
arch = "amd64"
flavour = "tiny"
path = "x/stage3.tar.xz"
size = 1
sha512 = "{SEED_DIGEST}"
"""
RECORDS: Mapping[Key[Any], Any] = {
    SNAPSHOT(): SnapshotRecord("20260310", COMMIT, 1773187200, "0" * 128, "A" * 40),
    TREE(): TreeRecord("20260310", COMMIT, 1773187200),
    SEED("tiny"): SeedRecord("x/stage3.tar.xz", SEED_DIGEST),
}


def copy_programs(root: Path, names: Sequence[str] = PROGRAMS) -> Path:
    """Copy programs of this machine and the libraries they need into `root`."""
    programs = {name: os.path.realpath(str(shutil.which(name))) for name in names}
    needed = subprocess.run(
        ["ldd", *programs.values()], check=True, capture_output=True, text=True
    ).stdout
    libraries = {word for word in needed.split() if word.startswith("/") and word[-1] != ":"}
    for path in libraries:
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
    (root / "bin").mkdir(parents=True, exist_ok=True)
    for name, path in programs.items():
        shutil.copy(path, root / "bin" / name)
    return root


def create(folder: Path, text: str = CONFIG) -> Site:
    """A site in `folder` with three chroots: `base`, `java` on it, `appliance` on that."""
    layout = Layout(site=folder, state=folder / "state")
    folder.mkdir(parents=True, exist_ok=True)
    layout.config.write_text(text)
    layout.lock.write_text(LOCK_TEXT)
    seed = layout.seed(SEED_DIGEST)
    for place in (
        seed / "etc",
        seed / "root",
        seed / "var/tmp",
        seed / "tmp",
        layout.export(COMMIT) / "profiles/default",
    ):
        place.mkdir(parents=True)
    copy_programs(seed, SITE_PROGRAMS)
    site = Site(layout, load.read_config(layout))
    record_as_done(site, RECORDS)
    return site


def record_as_done(site: Site, records_of: Mapping[Key[Any], Any]) -> None:
    """Write records, and save in doit's memory that their tasks wrote them, and config.lock."""
    tasks = TaskControl(list(generate_tasks("binmill", graph.build(site)))).tasks
    memory = Dependency(DurableBackend, str(site.layout.database), codec_cls=JSONCodec)
    for key, record in records_of.items():
        records.save(site.layout, key, record)
    for name in (LOCK().task, *(key.task for key in records_of)):
        task = tasks[name]
        memory.get_status(task, tasks)
        text = Path(next(iter(task.targets))).read_bytes()
        task.values = {"record": hashlib.sha256(text).hexdigest()}
        task.save_extra_values()
        memory.save_success(task)
    memory.close()


def doit(layout: Layout, *words: str, code: int = 0) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "doit", *words],
        cwd=PROJECT,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        env={**os.environ, "BINMILL_CONFIG": str(layout.config)},
    )
    assert result.returncode == code, result.stdout
    return result.stdout


def enter_sh(layout: Layout, script: str, *options: str, name: str = "java") -> str:
    return doit(layout, "enter", name, *options, "--", "sh", "-c", script)


def modified_chroots(layout: Layout) -> list[str]:
    status = json.loads(doit(layout, "status", "--json"))
    return sorted(name for name, chroot in status["chroots"].items() if chroot["modified"])
