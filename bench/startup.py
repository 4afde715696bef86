"""Start-up: the cost of `doit list`, and of a run with nothing to do, above plain doit.

Plain doit runs an empty dodo.py, without the plugins of this project. Goals, with ten chroots:
0.15 s above it for a list, 0.3 s for a run with nothing to do. Each median by the clock
is followed by the least processor time of all runs, which other work on the machine disturbs less.

The sites are generated: their records claim that every task has run, and the results that records
name exist as empty directories. No task runs.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import Bench, Size, Table, row, scratch_filesystem, seconds
from tasks import graph
from tasks.config import load
from tasks.layout import Layout
from tasks.records import (
    BINPKGS,
    CANDIDATE,
    CHECK,
    CHROOT,
    CLIENT,
    ETC,
    GATE,
    LOCK,
    MOUNT,
    PUBLISH,
    SEED,
    SNAPSHOT,
    TREE,
    BinpkgsRecord,
    CandidateRecord,
    CheckRecord,
    ChrootRecord,
    ClientRecord,
    EtcRecord,
    GateRecord,
    Kind,
    MountRecord,
    PublishRecord,
    SeedRecord,
    SnapshotRecord,
    TreeRecord,
)
from tasks.site import CONFIG_VARIABLE, Site
from tests.kit import stub_site

PROJECT = Path(__file__).parents[1]
PLAIN_DOIT = Path(__file__).with_name("plain_doit.py")
CHROOTS = (10, 100)
COMMANDS = (("list",), ("list", "--all"), (), ("status",), ("why",))
COMMIT, DIGEST = "b" * 40, "a" * 64
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
STACK = """
[chroots.c{number}]
base = "base"
packages = ["app-misc/a{number}"]
use = ["x", "-y"]
"""
LOCK_TEXT = f"""
version = 1
[tree]
tag = "20260310"
commit = "{COMMIT}"
[seeds.openrc]
arch = "amd64"
flavour = "openrc"
path = "x/stage3.tar.xz"
size = 1
sha512 = "{"a" * 128}"
"""
RECORDS: Mapping[Kind[Any], Any] = {
    SNAPSHOT: SnapshotRecord("20260310", COMMIT, 0, "0" * 128, "A" * 40),
    TREE: TreeRecord("20260310", COMMIT, 0),
    SEED: SeedRecord("x/stage3.tar.xz", DIGEST),
    CHROOT: ChrootRecord(("layers",)),
    ETC: EtcRecord("etc", ()),
    MOUNT: MountRecord((), ()),
    CHECK: CheckRecord(""),
    BINPKGS: BinpkgsRecord("s", ()),
    CANDIDATE: CandidateRecord(1, "s", {}),
    GATE: GateRecord(1, 0),
    PUBLISH: PublishRecord(1, "s", {}),
    CLIENT: ClientRecord(1, ()),
}


def run(table: Table, size: Size) -> None:
    """Run each command with an empty dodo.py and on a site, in turns."""
    with scratch_filesystem(1) as place:
        empty = place / "empty"
        empty.mkdir()
        (empty / "dodo.py").write_text("def task_x():\n    return {'actions': []}\n")
        for count in CHROOTS:
            config = _site(place / str(count), count)
            for words in COMMANDS:
                usual = words[:1] if words[:1] == ("list",) else ()
                own_costs, usual_costs = [], []
                for _ in range(size.pairs):
                    usual_costs.append(_doit(empty, usual))
                    own_costs.append(_doit(PROJECT, words, config))
                name = f"{' '.join(('doit', *words))}, {count} chroots"
                _add(table, name, own_costs, usual_costs)
    table.save({"usual way": "plain doit with an empty dodo.py"})
    for each in table.rows:
        print(f"{each.name:48}{each.seconds - (each.baseline or 0):+9.3f} above the usual way")


BENCH = Bench(run, full=Size(15), quick=Size(3))


@dataclass(frozen=True)
class Cost:
    """Seconds of one run: by the clock, and of the processor (user and system)."""

    clock: float
    processor: float


def _add(table: Table, name: str, own: list[Cost], usual: list[Cost]) -> None:
    table.add(row(name, [cost.clock for cost in own], [cost.clock for cost in usual]))
    least = [min(cost.processor for cost in costs) for costs in (own, usual)]
    table.add(row(f"{name}, processor", least[:1], least[1:]))


def _doit(folder: Path, words: tuple[str, ...], config: Path | None = None) -> Cost:
    program = ("-m", "doit") if config else ("-P", str(PLAIN_DOIT))
    env = {**os.environ, CONFIG_VARIABLE: str(config)} if config else {**os.environ}
    # as users have it: the first run leaves compiled modules for the next one
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock = seconds([sys.executable, *program, *words], cwd=folder, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _site(folder: Path, count: int) -> Path:
    """Generate a site of `count` chroots on which every task has run; its config.toml."""
    folder.mkdir()
    layout = Layout(folder, folder / "state")
    text = CONFIG.format(fingerprint="A" * 40)
    text += "".join(STACK.format(number=number) for number in range(count - 1))
    layout.config.write_text(text)
    layout.lock.write_text(LOCK_TEXT)
    site = Site(layout, load.read_config(layout))
    _results(layout, list(site.config.chroots))
    keys = [step.key for step in graph.steps(site) if step.key != LOCK()]
    stub_site.record_as_done(site, {key: RECORDS[key.kind] for key in keys})
    return layout.config


def _results(layout: Layout, chroots: list[str]) -> None:
    """Make the directories that the records name."""
    for place in (
        layout.export(COMMIT),
        layout.seed(DIGEST),
        layout.state / "layers",
        layout.state / "etc",
    ):
        place.mkdir(parents=True)
    for name in chroots:
        (layout.binpkgs(name) / "s").mkdir(parents=True)
        (layout.binhost(name) / "gen" / "1").mkdir(parents=True)
        facts = layout.binhost(name) / "gen" / "1" / "generation.json"
        facts.write_text(f'{{"created": {int(time.time())}, "timestamp": 1}}')
        (layout.binhost(name) / "current").symlink_to("gen/1")
