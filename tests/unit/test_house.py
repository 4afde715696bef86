"""The rules of the house, read off the source: who may know whom."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.project import PROJECT

SOURCES = sorted((PROJECT / "tasks").rglob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("*.py"))
# The shared nouns: what a config, a lock, a path and an error are.
NOUNS = {"clock", "config", "domain", "errors", "layout", "lock", "messages", "text"}
DOMAIN = NOUNS | {"records", "site", "system", "portage", "updates"}
# What each package (and module at the top) may import. Data flows from left to right:
# snapshot, seed -> chroot -> builder -> publish -> serve; flow/ ties them to a site.
MAY_KNOW: dict[str, set[str]] = {
    "clock": set(),
    "text": set(),
    "messages": {"text"},
    "domain": set(),
    "errors": {"messages"},
    "layout": set(),
    "system": {"clock", "errors", "messages", "text"},
    "config": {"errors", "layout", "messages", "text"},
    "lock": {"errors", "layout", "config", "domain", "system"},
    "causes": {"domain", "messages", "text"},
    "records": NOUNS | {"system"},
    "updates": NOUNS | {"system"},
    "journal": NOUNS | {"system"},
    "site": NOUNS | {"records", "system"},
    "portage": NOUNS | {"system"},
    "snapshot": NOUNS | {"system"},
    "seed": NOUNS | {"system"},
    "chroot": DOMAIN,
    "builder": NOUNS | {"system", "portage"},
    "publish": NOUNS | {"system", "portage"},
    "serve": NOUNS | {"system"},
    "flow": DOMAIN | {"snapshot", "seed", "chroot", "builder", "publish", "serve"},
    "report": DOMAIN | {"causes", "journal", "publish"},
    "upkeep": DOMAIN | {"snapshot", "seed", "chroot", "builder", "publish", "serve"},
    "engine": NOUNS | {"causes", "journal", "records", "system"},
    "graph": DOMAIN | {"causes", "chroot", "engine", "flow"},
    "commands": DOMAIN
    | {"causes", "chroot", "engine", "flow", "graph", "journal", "publish", "report", "snapshot"}
    | {"upkeep"},
}
KNOWS_DOIT = {"commands", "engine", "dodo"}
# A name that says nothing about what is in it.
EMPTY_NAMES = {
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "manager",
    "managers",
    "misc",
    "data",
    "base",
    "core",
}


def room(path: Path) -> str:
    """The room that a module is in, or the module itself where it stands at the top."""
    relative = path.relative_to(PROJECT)
    return relative.parts[1].removesuffix(".py") if relative.parts[0] == "tasks" else "dodo"


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever the import stands in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            if node.module == "tasks":
                yield from (f"tasks.{name.name}" for name in node.names)
            else:
                yield str(node.module)


def shown(path: Path) -> str:
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_rooms_know_only_whom_they_may(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        assert list(imported(path)) == []
        return
    rooms = {m.split(".")[1] for m in imported(path) if m.startswith("tasks.")} - {here}
    assert rooms <= MAY_KNOW[here], f"{here} may not know {sorted(rooms - MAY_KNOW[here])}"


@pytest.mark.parametrize("path", [*SOURCES, PROJECT / "dodo.py"], ids=shown)
def test_only_the_engine_knows_doit(path: Path) -> None:
    outside = {module.split(".")[0] for module in imported(path)}
    if room(path) not in KNOWS_DOIT:
        assert "doit" not in outside
    assert "dodo" not in outside


def test_every_room_has_a_rule() -> None:
    assert {room(path) for path in SOURCES} - {"__init__"} == set(MAY_KNOW)


def test_nobody_knows_himself_through_others() -> None:
    def known(name: str) -> set[str]:
        return MAY_KNOW[name].union(*(known(other) for other in MAY_KNOW[name] - {name}))

    for name in MAY_KNOW:
        assert name not in known(name)


@pytest.mark.parametrize("module", ["subprocess", "plumbum"])
def test_programs_run_in_one_place(module: str) -> None:
    """Others may name the constants and exceptions of subprocess, nothing that starts one."""
    for path in SOURCES:
        if path.name in ("command.py", "sandbox_init.py"):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"subprocess\.(run|call|check_\w+|getoutput)\b", text), shown(path)
        if module == "plumbum":
            assert "plumbum" not in {m.split(".")[0] for m in imported(path)}, shown(path)


def test_no_shell() -> None:
    for path in SOURCES:
        assert "shell=True" not in path.read_text(encoding="utf-8"), shown(path)


def test_dodo_only_names_things() -> None:
    lines = (PROJECT / "dodo.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_a_name_says_what_is_in_a_module(path: Path) -> None:
    assert path.stem not in EMPTY_NAMES
    assert path.parent.name not in EMPTY_NAMES


@pytest.mark.parametrize("path", [*SOURCES, PROJECT / "dodo.py"], ids=shown)
def test_what_is_public_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("path", TESTS, ids=shown)
def test_a_test_module_is_imported_by_nothing(path: Path) -> None:
    """Tests share factories, fixtures and programs through tests/kit and tests/programs."""
    shared = ("tests.kit", "tests.programs")
    ours = {module for module in imported(path) if module.split(".")[0] == "tests"}
    assert {module for module in ours if not module.startswith(shared)} == set()


@pytest.mark.parametrize("path", TESTS, ids=shown)
def test_a_program_of_a_test_stands_in_a_file(path: Path) -> None:
    """Only there do the linters read it, and a renamed module does not break it unnoticed."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            with contextlib.suppress(SyntaxError):
                program = ast.walk(ast.parse(node.value))
                assert not any(isinstance(x, ast.Import | ast.ImportFrom) for x in program), (
                    node.value
                )


# What a pool of workers would break: other threads see it, or it works in the main thread only.
PROCESS_WIDE = re.compile(
    r"os\.environ(\[[^]]*\] *=[^=]|\.(pop|update|clear|setdefault)\()|del os\.environ|os\.putenv"
    r"|os\.chdir|os\.umask|signal\.(alarm|setitimer|SIGALRM)"
)


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_no_state_of_the_process_is_changed(path: Path) -> None:
    # a program of its own, and the reminder of signals in the main thread
    if shown(path) in ("tasks/system/sandbox_init.py", "tasks/engine/signals.py"):
        return
    source = path.read_text(encoding="utf-8")
    assert [found[0] for found in PROCESS_WIDE.finditer(source)] == []
