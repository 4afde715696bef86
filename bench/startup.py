"""Start-up: what `doit list` and a run with nothing to do cost above an empty dodo.py.

Aims, with ten chroots: 0.15 s above it for a list, 0.3 s for a run with nothing to do. Beside the
medians by the clock stands the least processor time of all runs, which others on the machine
disturb less.

The sites are made up: their records say that everything has been made, and what records name is
there as empty directories. No task runs.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doit.control import TaskControl
from doit.dependency import Dependency, JSONCodec
from doit.loader import generate_tasks

from bench.measure import Row, report, row, seconds
from tasks import graph, records, site
from tasks.engine.backend import DurableBackend
from tasks.layout import Layout

PROJECT = Path(__file__).parents[1]
SIZES = (10, 100)
DIGEST = "a" * 64
CONFIG = """
[keys.k]
file = "k.asc"
fingerprints = ["{fingerprint}"]
[mirrors]
gentoo = ["http://127.0.0.1:1"]
[tree]
key = "k"
[seeds.openrc]
flavour = "openrc"
key = "k"
[chroots.base]
seed = "openrc"
profile = "default/linux"
"""
CHROOT = """
[chroots.c{number}]
base = "base"
packages = ["app-misc/a{number}"]
use = ["x", "-y"]
"""
LOCK = f"""
version = 1
[tree]
tag = "20260310"
commit = "{"b" * 40}"
[seeds.openrc]
arch = "amd64"
flavour = "openrc"
path = "x/stage3.tar.xz"
size = 1
sha512 = "{"a" * 128}"
"""
MADE: dict[str, dict[str, Any]] = {
    "tree": {"commit": "b" * 40},
    "seed": {"sha512": DIGEST},
    "chroot": {"layers": ["layers"]},
    "etc": {"path": "etc"},
    "binpkgs": {"set": "s"},
    "candidate": {"generation": 1},
    "gate": {"generation": 1},
    "publish": {"generation": 1},
}


def main(rounds: int = 15) -> None:
    """Print the table: an empty dodo.py and the site in turns."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        empty = Path(name, "empty")
        empty.mkdir()
        (empty / "dodo.py").write_text("def task_x():\n    return {'actions': []}\n")
        for size in SIZES:
            config = _site(Path(name, str(size)), size)
            for words in (("list",), ("list", "--all"), (), ("status",), ("why",)):
                usual, own = [], []
                for _ in range(rounds):
                    usual.append(_doit(empty, words[:1] if words[:1] == ("list",) else ()))
                    own.append(_doit(PROJECT, words, BINMILL_CONFIG=str(config)))
                said = f"doit {' '.join(words)}, {size} chroots".replace(" ,", ",")
                rows.append(row(said, [run.clock for run in own], [run.clock for run in usual]))
                rows.append(
                    row(
                        f"{said}, processor",
                        [min(run.processor for run in own)],
                        [min(run.processor for run in usual)],
                    )
                )
    report("startup", rows, {"usual way": "the same with an empty dodo.py"})
    for each in rows:
        print(f"{each.name:44}{each.seconds - (each.baseline or 0):+9.3f} above the usual way")


@dataclass(frozen=True)
class _Took:
    """Seconds of one run: by the clock, and of the processor (user and system)."""

    clock: float
    processor: float


def _doit(folder: Path, words: tuple[str, ...], **variables: str) -> _Took:
    command = [sys.executable, "-m", "doit", *words]
    environment = {**os.environ, **variables}
    # as it is for people: the first run leaves compiled modules for the next one
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock = seconds(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _Took(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _site(folder: Path, size: int) -> Path:
    """A site of so many chroots on which everything has been made; its config.toml."""
    folder.mkdir()
    text = CONFIG.format(fingerprint="A" * 40)
    text += "".join(CHROOT.format(number=number) for number in range(size - 1))
    (folder / "config.toml").write_text(text)
    (folder / "config.lock").write_text(LOCK)
    os.environ[site.CONFIG_VARIABLE] = str(folder / "config.toml")
    own = site.load(PROJECT)
    tasks = TaskControl(list(generate_tasks("binmill", graph.build(own)))).tasks
    memory = Dependency(DurableBackend, str(own.layout.database), codec_cls=JSONCodec)
    _results(own.layout, list(own.config.chroots))
    for name in tasks:
        records.write(own.layout, name, MADE.get(name.partition(":")[0], {}))
    for name, task in tasks.items():
        if task.actions and task.targets:
            memory.get_status(task, tasks)
            text = own.layout.record(name).read_text()
            task.values = {"record": hashlib.sha256(text.encode()).hexdigest()}
            task.save_extra_values()
            memory.save_success(task)
    memory.close()
    return own.layout.config


def _results(layout: Layout, chroots: list[str]) -> None:
    """What the made-up records name."""
    for place in (
        layout.export("b" * 40),
        layout.seed(DIGEST),
        layout.state / "layers",
        layout.state / "etc",
    ):
        place.mkdir(parents=True)
    for name in chroots:
        (layout.binpkgs(name) / "s").mkdir(parents=True)
        (layout.binhost(name) / "gen" / "1").mkdir(parents=True)
        facts = layout.binhost(name) / "gen" / "1" / "generation.json"
        facts.write_text(f'{{"created": {int(time.time())}}}')
        (layout.binhost(name) / "current").symlink_to("gen/1")
