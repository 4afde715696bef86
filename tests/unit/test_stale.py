"""Tasks that a change of config.toml makes stale: a row for every key.

The keys are read off the models, so a key without a row fails. The site has recorded state in the
real database; doit itself says what is stale. Only what the change itself makes stale counts:
later tasks run if a record before them comes out different.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from doit.control import TaskControl
from doit.dependency import Dependency, JSONCodec
from doit.loader import generate_tasks
from doit.task import Task

from tasks import graph, records
from tasks import lock as lock_file
from tasks.config import load as config_file
from tasks.engine.backend import DurableBackend
from tasks.layout import Layout
from tasks.publish import generation
from tasks.publish.generation import Issue, Source
from tasks.records import (
    AccessTestRecord,
    BinpkgsRecord,
    CandidateRecord,
    CheckRecord,
    ChrootRecord,
    ClientRecord,
    EtcRecord,
    GateRecord,
    Kind,
    MirrorRecord,
    MountRecord,
    OverlayRecord,
    PlanRecord,
    PublishRecord,
    SeedRecord,
    SnapshotRecord,
    TreeRecord,
)
from tasks.site import Site
from tests.kit.config_keys import keys
from tests.kit.configs import FOUR_CHROOTS
from tests.kit.set_clock import SetClock

FINGERPRINT, OTHER = "A" * 40, "B" * 40
LOCK = lock_file.Lock.model_validate(
    {
        "tree": {"tag": "20260310", "commit": "c" * 40},
        "overlays": {
            name: {"url": f"https://git.example/{name}.git", "branch": "main", "commit": "d" * 40}
            for name in ("ours", "more")
        },
        "seeds": {
            name: {
                "arch": "amd64",
                "flavour": flavour,
                "path": "x/stage3.tar.xz",
                "size": 1,
                "sha512": "e" * 128,
            }
            for name, flavour in (("s", "openrc"), ("t", "musl"))
        }
        | {"own": {"path": "own.tar.xz", "sha512": "e" * 128}},
    }
)
RECORDS: dict[Kind[Any], Any] = {
    records.SNAPSHOT: SnapshotRecord("20260310", "c" * 40, 0, "e" * 128, FINGERPRINT),
    records.TREE: TreeRecord("20260310", "c" * 40, 0),
    records.OVERLAY: OverlayRecord("d" * 40),
    records.SEED: SeedRecord("x/stage3.tar.xz", "e" * 128),
    records.CHROOT: ChrootRecord(("layers",)),
    records.ETC: EtcRecord("etc", ()),
    records.MOUNT: MountRecord((), ()),
    records.CHECK: CheckRecord("x"),
    records.PLAN: PlanRecord("p", 1, "plans"),
    records.BINPKGS: BinpkgsRecord("s", ()),
    records.CANDIDATE: CandidateRecord(1, "s", {}),
    records.GATE: GateRecord(1, 0),
    records.PUBLISH: PublishRecord(1, "s", {}),
    records.CLIENT: ClientRecord(1, ()),
    records.MEMBERS: AccessTestRecord(1, "role:java", (), ()),
    records.MIRROR: MirrorRecord({}, ""),
}


def each(kind: str, *chroots: str) -> set[str]:
    """The task of each named chroot; of all chroots without a name."""
    return {f"{kind}:{name}" for name in chroots or FOUR_CHROOTS["chroots"]}


def portage(value: Any) -> list[tuple[Any, ...]]:
    """Rows for a setting of /etc/portage; one of a base also affects its stacks."""
    return [
        ("base", value, each("etc", "base", "java", "tomcat")),
        ("java", value, each("etc", "java", "tomcat")),
        ("tomcat", value, each("etc", "tomcat")),
        ("other", value, each("etc", "other")),
    ]


NONE: set[str] = set()
FROM_SEED = ("candidate", "gate", "publish", "client", "members")
ENTER = ("mount", "check", "plan", "binpkgs", "candidate", "gate", "publish", "client", "members")
# KEY: rows of (the entry of the table, where the table has names; the new value; what is stale).
# In the tables named by people, KEY has a * for the name. A new key gets its row here, and its
# line in docs/config.md, "What a change makes stale".
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "keys.*.file": [("k", "new.asc", NONE)],
    "keys.*.fingerprints": [("k", [OTHER], NONE)],
    "keys.*.accept_expired_before": [("k", date(2026, 1, 1), NONE)],
    "mirrors.gentoo": [(None, ["http://other.example"], each("etc"))],
    "mirrors.local": [(None, ["http://local.example"], each("etc"))],
    "network.proxy": [(None, "http://proxy.example:3128", NONE)],
    "network.no_proxy": [(None, ["git.example"], NONE)],
    "tree.name": [(None, "mine", each("etc"))],
    "tree.key": [(None, "l", NONE)],
    "tree.remote": [(None, "git@git.example:frozen.git", each("candidate"))],
    "tree.lookback_days": [(None, 9, NONE)],
    "tree.warn_hours": [(None, 9, NONE)],
    "tree.fail_hours": [(None, 9, NONE)],
    "tree.manifests": [(None, "never", NONE)],
    "overlays.*.url": [
        (
            "ours",
            "https://git.example/moved.git",
            {"lock", "overlay:ours"} | each("candidate", "java", "tomcat"),
        ),
        ("ours", "https://me:two@git.example/ours.git", NONE),  # another password
        ("more", "https://git.example/moved.git", {"lock", "overlay:more"}),
    ],
    "overlays.*.branch": [("ours", "next", {"lock", "overlay:ours"})],
    "seeds.*.arch": [("s", "arm64", {"lock", "seed:s"})],
    "seeds.*.flavour": [("s", "systemd", {"lock", "seed:s"})],
    "seeds.*.key": [("s", "l", NONE)],
    "seeds.*.build": [("s", "20260301T170000Z", {"lock"})],
    "seeds.*.file": [("own", "new.tar.xz", {"lock"})],
    "seeds.*.sha512": [("own", "f" * 128, {"lock"})],
    "seeds.*.setuid": [("s", ["/var/x/y"], NONE)],
    "chroots.*.seed": [
        (
            "base",
            "t",
            {"chroot:base"}
            | {f"{kind}:{name}" for kind in FROM_SEED for name in ("base", "java", "tomcat")},
        ),
    ],
    "chroots.*.base": [
        (
            "tomcat",
            "base",
            {"chroot:tomcat", "binpkgs:tomcat"} | {f"{k}:tomcat" for k in ENTER} | {"etc:tomcat"},
        ),
    ],
    "chroots.*.profile": portage("default/new"),
    "chroots.*.overlays": [
        (
            "base",
            ["more"],
            each("etc", "base", "java", "tomcat")
            | {f"{kind}:{name}" for kind in ENTER for name in ("base", "java", "tomcat")},
        ),
        ("tomcat", ["more"], {"etc:tomcat", *(f"{kind}:tomcat" for kind in ENTER)}),
        ("other", ["more"], {"etc:other", *(f"{kind}:other" for kind in ENTER)}),
    ],
    "chroots.*.packages": [
        (name, ["a/b"], {f"{kind}:{name}" for kind in ("check", "plan", "binpkgs")})
        for name in ("base", "other", "java", "tomcat")
    ],
    "chroots.*.use": portage(["x"]),
    "chroots.*.package_use": portage({"a/b": ["x"]}),
    "chroots.*.accept_keywords": portage(["~amd64"]),
    "chroots.*.package_accept_keywords": portage({"a/b": ["~amd64"]}),
    "chroots.*.accept_license": portage(["MIT"]),
    "chroots.*.package_license": portage({"a/b": ["MIT"]}),
    "chroots.*.package_mask": portage(["a/b"]),
    "chroots.*.package_unmask": portage(["a/b"]),
    "chroots.*.features": portage(["-news"]),
    "chroots.*.groups": [("java", ["role:java"], NONE)],
    "chroots.*.test": portage(["a/b"]),
    "chroots.*.env": portage({"CFLAGS": "-O3"}),
    "chroots.*.portage_dir": portage("portage"),
    "binhost.listen": [(None, "127.0.0.1:9", each("candidate"))],
    "binhost.url": [(None, "https://binhost.example", each("candidate"))],
    "binhost.channels": [(None, ["stable"], each("candidate"))],
    "binhost.keep": [(None, 9, NONE)],
    "binhost.keep_days": [(None, 9, NONE)],
    "binhost.signing_home": [(None, "elsewhere", NONE)],
    "binhost.builder": [(None, "https://factory.example", NONE)],
    "binhost.valid_days": [(None, 99, each("candidate"))],
    "binhost.fresh_install_every": [(None, 3, NONE)],
    "binhost.signing_key": [(None, FINGERPRINT, each("candidate"))],
    "build.packages": [(None, 2, NONE)],
    "build.jobs": [(None, 2, NONE)],
    "build.timeout_minutes": [(None, 9, NONE)],
    "build.driver": [(None, "emerge", each("binpkgs"))],
    "build.strict": [(None, True, each("binpkgs"))],
    "build.package_minutes": [(None, 9, NONE)],
    "build.silent_minutes": [(None, 9, NONE)],
    "build.log_mb": [(None, 9, NONE)],
    "build.memory_mb": [(None, 9, NONE)],
    "build.processes": [(None, 9, NONE)],
    "build.priorities": [(None, {"a/b": 1}, NONE)],
    "build.apart": [(None, [["a/b", "c/d"]], NONE)],
    "build.tmpfs_mb": [(None, 9, NONE)],
    **{
        f"build.limits.*.{key}": [("a/b", 9, NONE)]
        for key in (
            *("jobs", "package_minutes", "silent_minutes", "log_mb", "memory_mb", "processes"),
            "tmpfs_mb",
        )
    },
    "build.extra_build_deps": [(None, {"a/b": ["c/d"]}, each("binpkgs"))],
    "logs.keep_days": [(None, 9, NONE)],
    "logs.keep_mb": [(None, 9, NONE)],
    "access.groups": [(None, ["role:java", "site:acme"], each("candidate"))],
    "access.restricted": [(None, "role:java", each("candidate"))],
    "access.free": [(None, ["MIT"], each("candidate"))],
    "access.binhosts": [(None, {"java": "role:java"}, each("candidate"))],
    "access.packages": [(None, {"a/b": "role:java"}, each("candidate"))],
    "mirror.keep_days": [(None, 9, {"mirror"})],  # the table makes the task
    "serve.certificate": [(None, "new.pem", NONE)],
    "serve.certificate_key": [(None, "new.pem", NONE)],
    "serve.worker": [(None, "www", NONE)],
}


def load(layout: Layout, raw: dict[str, Any]) -> dict[str, Task]:
    """The tasks of a config.toml, with the dependencies that doit derives from targets."""
    layout.config.write_text(tomli_w.dumps(raw), encoding="utf-8")
    site = Site(layout, config_file.read_config(layout))
    tasks: dict[str, Task] = TaskControl(list(generate_tasks("x", graph.build(site)))).tasks
    return {name: task for name, task in tasks.items() if task.actions and task.targets}


def stale(layout: Layout, raw: dict[str, Any]) -> set[str]:
    """The tasks that doit itself calls stale."""
    tasks = load(layout, raw)
    memory = Dependency(DurableBackend, str(layout.database), codec_cls=JSONCodec)
    try:
        statuses = {name: memory.get_status(task, tasks).status for name, task in tasks.items()}
    finally:
        memory.close()
    return {name for name, status in statuses.items() if status != "up-to-date"}


def built_site(layout: Layout) -> Layout:
    """A site on which every task counts as done, by its records and doit's memory."""
    layout.site.mkdir(parents=True)
    lock_file.write(layout, LOCK)
    tasks = load(layout, FOUR_CHROOTS)
    for place in (
        layout.export("c" * 40),
        layout.export("d" * 40),
        layout.seed("e" * 128),
        layout.state / "layers",
        layout.state / "etc",
        layout.state / "plans",
    ):
        place.mkdir(parents=True)
    for name in FOUR_CHROOTS["chroots"]:
        (layout.binpkgs(name) / "s").mkdir(parents=True)
        (layout.binhost(name) / "gen" / "1").mkdir(parents=True)
        now = int(time.time())
        issue = Issue(now, now, {}, 0)
        generation.write(layout.binhost(name) / "gen" / "1", Source("s", FINGERPRINT, {}), issue)
        (layout.binhost(name) / "current").symlink_to("gen/1")
    for name in tasks:
        kind, _, chroot = name.partition(":")
        for each, record in RECORDS.items():
            if each.name == kind:
                records.save(layout, each(chroot), record)
    memory = Dependency(DurableBackend, str(layout.database), codec_cls=JSONCodec)
    for task in tasks.values():
        memory.get_status(task, tasks)
        data = Path(task.targets[0]).read_bytes()
        task.values = {"record": hashlib.sha256(data).hexdigest()}
        task.save_extra_values()
        memory.save_success(task)
    memory.close()
    return layout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    place = tmp_path_factory.mktemp("stale") / "site"
    return built_site(Layout(place, place / "state"))


def rows() -> Iterator[Any]:
    for key, cases in ROWS.items():
        for entry, value, wanted in cases:
            place = key.replace("*", entry or "*")
            yield pytest.param(place, value, wanted, id=f"{place} = {value}"[:60])


def changed_config(place: str, value: Any) -> dict[str, Any]:
    raw = copy.deepcopy(FOUR_CHROOTS)
    *tables, key = place.split(".")
    table = raw
    for name in tables:
        table = table.setdefault(name, {})
    assert table.get(key) != value, "the row changes nothing"
    table[key] = value
    return raw


def test_every_key_has_a_row() -> None:
    without = set(keys()) - set(ROWS)
    assert not without, (
        f"new in config.toml: {', '.join(sorted(without))}. Say in ROWS of {Path(__file__).name} "
        "what a change of it makes stale (a value that differs from SITE's, and the tasks), and in "
        "docs/config.md under 'What a change makes stale'"
    )
    removed = set(ROWS) - set(keys())
    assert not removed, f"no longer in config.toml: {', '.join(sorted(removed))}; take out its rows"


def test_finished_site_is_not_stale(site: Layout) -> None:
    assert stale(site, FOUR_CHROOTS) == set()


@pytest.mark.parametrize(("place", "value", "wanted"), list(rows()))
def test_changed_key_makes_its_tasks_stale(
    site: Layout, place: str, value: Any, wanted: set[str]
) -> None:
    assert stale(site, changed_config(place, value)) == wanted


@pytest.mark.parametrize(
    ("place", "value", "wanted"),
    [
        ("keys.new", {"file": "n", "fingerprints": [OTHER]}, NONE),
        ("overlays.new", {"url": "https://git.example/new.git"}, {"lock", "overlay:new"}),
        ("seeds.new", {"flavour": "new", "key": "k"}, {"lock", "seed:new"}),
        (
            "chroots.new",
            {"base": "java"},
            each("chroot", "new") | each("etc", "new") | {f"{kind}:new" for kind in ENTER},
        ),
    ],
)
def test_new_entry_makes_only_its_tasks_stale(
    site: Layout, place: str, value: Any, wanted: set[str]
) -> None:
    assert stale(site, changed_config(place, value)) == wanted


@pytest.mark.parametrize("place", ["chroots.tomcat", "chroots.other", "overlays.more", "keys.l"])
def test_deleted_entry_makes_nothing_stale(site: Layout, place: str) -> None:
    raw = copy.deepcopy(FOUR_CHROOTS)
    table, name = place.split(".")
    del raw[table][name]
    assert stale(site, raw) == set()


def test_comment_and_order_make_nothing_stale(site: Layout) -> None:
    load(site, FOUR_CHROOTS)
    site.config.write_text("# new\n" + site.config.read_text())
    tasks = {name: dict(entry) for name, entry in reversed(FOUR_CHROOTS["chroots"].items())}
    assert stale(site, {**FOUR_CHROOTS, "chroots": tasks}) == set()


def test_release_manifest_is_stale_at_half_of_its_validity(site: Layout, clock: SetClock) -> None:
    now, half = int(time.time()), 15 * 86400
    clock.set(now + half - 600)
    assert stale(site, FOUR_CHROOTS) == set()
    clock.set(now + half + 600)
    assert stale(site, FOUR_CHROOTS) == {f"publish:{name}" for name in FOUR_CHROOTS["chroots"]}
