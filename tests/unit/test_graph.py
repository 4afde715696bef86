"""The task graph of several sites, as doit itself sees it; nothing runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doit.control import TaskControl
from doit.dependency import JSONCodec
from doit.loader import generate_tasks
from doit.task import Task

from tasks import graph
from tasks.config.tables import Config
from tasks.engine.on_demand import OnDemandTask
from tasks.engine.spelling import commands
from tasks.layout import Layout
from tasks.portage import source_date
from tasks.site import Site
from tests.kit.configs import BASE, ONE_CHROOT

PER_CHROOT = (
    "chroot",
    "etc",
    "mount",
    "check",
    "plan",
    "binpkgs",
    "candidate",
    "gate",
    "publish",
    "client",
)
SHARED = {"snapshot", "lock", "tree", *graph.GROUPS}

OVERLAYS = {name: {"url": f"https://git.example/{name}.git"} for name in ("java", "science")}
CONFIGS: dict[str, dict[str, Any]] = {
    "one chroot": ONE_CHROOT,
    "no chroots": {**ONE_CHROOT, "chroots": {}},
    "no stack": {
        **ONE_CHROOT,
        "chroots": {"a": BASE, "b": BASE, "c": {**BASE, "packages": ["x/y"]}},
    },
    "three levels": {
        **ONE_CHROOT,
        # on purpose in the wrong order
        "chroots": {"tomcat": {"base": "java"}, "java": {"base": "base"}, "base": BASE},
    },
    "two stacks on one base, overlays, own files": {
        **ONE_CHROOT,
        "overlays": OVERLAYS,
        "chroots": {
            "base": {**BASE, "portage_dir": "portage/base"},
            "java": {"base": "base", "overlays": ["java"]},
            "lab": {"base": "base", "overlays": ["science", "java"], "use": ["x"]},
        },
    },
    "names alike": {
        **ONE_CHROOT,
        "overlays": {"base": {"url": "https://git.example/base.git"}},
        "seeds": {"base": {"flavour": "openrc", "key": "k"}},
        "chroots": {
            "base": {**BASE, "seed": "base", "overlays": ["base"]},
            "snapshot": BASE | {"seed": "base"},
            "list": {"base": "snapshot"},
        },
    },
}


def site_of(raw: dict[str, Any]) -> Site:
    """A site at a path that does not exist, so nothing can be read there."""
    place = Path("/nonexistent/site")
    return Site(Layout(place, place / "state"), Config.model_validate(raw))


@pytest.fixture(params=list(CONFIGS.values()), ids=list(CONFIGS))
def site(request: pytest.FixtureRequest) -> Site:
    return site_of(request.param)


def tasks_of(site: Site) -> dict[str, Task]:
    """Tasks by name, with the dependencies that doit derives from targets; raises doit's errors."""

    def creator() -> Iterator[Any]:
        yield from graph.build(site)

    control = TaskControl(generate_tasks("binmill", creator()))
    tasks: dict[str, Task] = control.tasks
    tasks.pop("binmill", None)
    return tasks


def before(tasks: dict[str, Task], name: str) -> set[str]:
    """All tasks that must be up to date before a task may run."""
    dependencies: set[str] = set()
    todo = [name]
    while todo:
        for each in tasks[todo.pop()].task_dep:
            if each not in dependencies:
                dependencies.add(each)
                todo.append(each)
    return dependencies


def test_graph_has_every_task(site: Site) -> None:
    config = site.config
    wanted = SHARED | {f"overlay:{n}" for n in config.overlays}
    wanted |= {f"seed:{n}" for n in config.seeds}
    wanted |= {f"{kind}:{n}" for kind in PER_CHROOT for n in config.chroots}
    assert set(tasks_of(site)) == wanted


def test_doc_of_a_task_is_one_line(site: Site) -> None:
    for name, task in tasks_of(site).items():
        assert task.doc, name
        assert "\n" not in task.doc
        assert 15 <= len(task.doc) <= 80, task.doc
        assert not task.doc.endswith("."), task.doc
        assert task.doc[0].islower(), task.doc


def test_docs_of_tasks_differ(site: Site) -> None:
    docs = [task.doc for task in tasks_of(site).values() if not task.has_subtask]
    assert len(docs) == len(set(docs))


def test_graph_has_no_circle(site: Site) -> None:
    tasks = tasks_of(site)
    for name in tasks:
        assert name not in before(tasks, name)


def test_every_dependency_is_the_target_of_one_task(site: Site) -> None:
    tasks = tasks_of(site)
    targets = [target for task in tasks.values() for target in task.targets]
    assert len(targets) == len(set(targets))
    for task in tasks.values():
        for path in task.file_dep:
            assert path in targets or path == str(source_date.PROGRAM), (task.name, path)
        assert all(Path(path).is_absolute() for path in [*task.targets, *task.file_dep])


def test_target_of_a_task_is_its_record(site: Site) -> None:
    for name, task in tasks_of(site).items():
        if task.has_subtask or name.partition(":")[0] == "lock":
            continue
        assert task.targets == [str(site.layout.record(name))]


def test_defaults_reach_every_chroot(site: Site) -> None:
    tasks = tasks_of(site)
    names = graph.defaults(site)
    assert set(names) <= set(tasks)
    reached = set(names).union(*(before(tasks, name) for name in names))
    for chroot in site.config.chroots:
        assert {f"{kind}:{chroot}" for kind in PER_CHROOT} <= reached
    assert "snapshot" not in reached  # the tree changes only on request


def test_tasks_follow_the_flow(site: Site) -> None:
    tasks, config = tasks_of(site), site.config
    for name, chroot in config.chroots.items():
        below = f"chroot:{chroot.base}" if chroot.base else f"seed:{chroot.seed}"
        assert below in before(tasks, f"chroot:{name}")
        if chroot.base:
            assert tasks[f"binpkgs:{name}"].setup_tasks == [f"binpkgs:{chroot.base}"]
        for overlay in config.effective(name).overlays:
            assert f"overlay:{overlay}" in before(tasks, f"mount:{name}")
        assert {"tree", "lock", f"etc:{name}", f"check:{name}"} <= before(tasks, f"plan:{name}")
        assert f"plan:{name}" in before(tasks, f"binpkgs:{name}")
        assert f"binpkgs:{name}" in before(tasks, f"candidate:{name}")
        assert f"candidate:{name}" in before(tasks, f"gate:{name}")
        assert f"gate:{name}" in before(tasks, f"publish:{name}")
        assert f"publish:{name}" in before(tasks, f"client:{name}")


def test_stack_does_not_wait_for_another(site: Site) -> None:
    tasks, config = tasks_of(site), site.config
    for name in config.chroots:
        others = set(config.chroots) - set(config.lineage(name))
        reached = before(tasks, f"client:{name}")
        assert not {f"{kind}:{other}" for kind in PER_CHROOT for other in others} & reached


def test_only_snapshot_and_lock_run_on_demand(site: Site) -> None:
    on_demand = {name for name, task in tasks_of(site).items() if isinstance(task, OnDemandTask)}
    assert on_demand == {"snapshot", "lock"}


def test_no_task_has_the_name_of_a_command(site: Site) -> None:
    theirs = {"ignore", "help", "strace", "tabcompletion", "reset-dep"}
    assert not (theirs | set(commands())) & set(tasks_of(site))


def test_graph_is_built_without_reading_a_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts no program either: no unit test may (conftest)."""

    def refuse(*arguments: Any, **_: Any) -> None:
        pytest.fail(f"a creator looked outside: {arguments!r}")

    with monkeypatch.context() as patch:
        for name in ("open", "stat", "lstat", "listdir", "scandir", "mkdir", "access", "readlink"):
            patch.setattr(os, name, refuse)
        for name in ("exists", "is_dir", "is_file", "open", "read_text", "read_bytes", "iterdir"):
            patch.setattr(Path, name, refuse)
        patch.setattr("builtins.open", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        tasks = list(graph.build(site))
    assert tasks


def test_same_config_gives_the_same_graph(site: Site) -> None:
    def shape(tasks: dict[str, Task]) -> list[Any]:
        return [(t.name, sorted(t.file_dep), t.targets, t.task_dep) for t in tasks.values()]

    assert shape(tasks_of(site)) == shape(tasks_of(site))


INPUTS = [
    (("chroots", "java", "use"), ["x"], {"etc:java", "etc:tomcat"}),
    (("chroots", "tomcat", "use"), ["x"], {"etc:tomcat"}),
    (("chroots", "base", "use"), ["x"], {"etc:base", "etc:java", "etc:tomcat"}),
    (("chroots", "java", "packages"), ["x/y"], {"check:java", "plan:java", "binpkgs:java"}),
    (("chroots", "java", "env"), {"X": "y"}, {"etc:java", "etc:tomcat"}),
    (("seeds", "openrc", "arch"), "arm64", {"seed:openrc"}),
    (("binhost",), {"keep": 3}, set()),
    (
        ("binhost",),
        {"signing_key": "B" * 40},
        {f"candidate:{name}" for name in ("base", "java", "tomcat")},
    ),
    (("build",), {"jobs": 3}, set()),
    (("tree", "lookback_days"), 3, set()),
]


@pytest.mark.parametrize(
    ("place", "value", "wanted"), INPUTS, ids=[".".join(case[0]) for case in INPUTS]
)
def test_setting_is_read_only_by_its_tasks(
    place: tuple[str, ...], value: Any, wanted: set[str]
) -> None:
    def with_value(raw: Any, keys: tuple[str, ...]) -> Any:
        inner = with_value(raw.get(keys[0], {}), keys[1:]) if len(keys) > 1 else value
        return {**raw, keys[0]: inner}

    def inputs(raw: dict[str, Any]) -> dict[str, str]:
        return {name: digest(task) for name, task in tasks_of(site_of(raw)).items()}

    def digest(task: Task) -> str:
        configs = [check.config for check, _, _ in task.uptodate if hasattr(check, "config")]
        text: str = JSONCodec().encode([configs, sorted(task.file_dep)])
        return text

    old = inputs(CONFIGS["three levels"])
    new = inputs(with_value(CONFIGS["three levels"], place))
    assert {name for name in old if old[name] != new[name]} == wanted


def test_doc_of_a_task_has_no_password() -> None:
    """`doit list` and the output of a run show the doc to all users."""
    url = "https://me:sesame@git.example/x.git"
    site = site_of(
        {
            **ONE_CHROOT,
            "overlays": {"x": {"url": url}},
            "mirrors": {"gentoo": ["http://me:sesame@mirror.example"]},
            "tree": {"key": "k", "remote": url},
            "network": {"proxy": "http://me:sesame@proxy.example"},
        }
    )
    for name, task in tasks_of(site).items():
        assert "sesame" not in task.doc, name
