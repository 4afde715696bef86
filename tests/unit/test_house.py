"""The rules of the project, checked in its source: imports, names, docstrings, side effects."""

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
# Shared nouns: config, lock, paths, errors.
NOUNS = {"clock", "config", "domain", "errors", "layout", "lock", "messages", "text"}
DOMAIN = NOUNS | {"records", "site", "system", "portage", "updates"}
BUILDS = {"planner", "store", "buildroot", "builder"}
# The imports that each package (and module at the top) may have. Data flows from left to right:
# snapshot, seed -> chroot -> planner -> store -> buildroot -> builder -> publish -> serve;
# flow/ ties them to a site.
MAY_IMPORT: dict[str, set[str]] = {
    "clock": set(),
    "text": set(),
    "messages": {"text"},
    "domain": set(),
    "errors": {"messages"},
    "layout": set(),
    "system": {"clock", "errors", "messages", "text"},
    "config": {"errors", "layout", "messages", "text"},
    "lock": {"errors", "layout", "config", "domain", "system", "text"},
    "causes": {"domain", "messages", "text"},
    "records": NOUNS | {"system"},
    "updates": NOUNS | {"system"},
    "journal": NOUNS | {"system"},
    "site": NOUNS | {"records", "system"},
    "portage": NOUNS | {"system"},
    "snapshot": NOUNS | {"system"},
    "seed": NOUNS | {"system"},
    "chroot": DOMAIN,
    "planner": NOUNS | {"causes", "system", "portage"},
    "store": NOUNS | {"causes", "planner", "portage", "system"},
    "buildroot": NOUNS | {"planner", "portage", "store", "system"},
    "builder": NOUNS | {"buildroot", "causes", "planner", "portage", "store", "system"},
    "publish": NOUNS | {"system", "portage"},
    "serve": NOUNS | {"system"},
    "flow": DOMAIN | BUILDS | {"causes", "snapshot", "seed", "chroot", "publish", "serve"},
    "report": DOMAIN | {"causes", "journal", "publish"},
    "upkeep": DOMAIN | BUILDS | {"snapshot", "seed", "chroot", "publish", "serve"},
    "engine": NOUNS | {"causes", "journal", "records", "system"},
    "graph": DOMAIN | {"causes", "chroot", "engine", "flow"},
    "commands": DOMAIN
    | BUILDS
    | {
        "causes",
        "chroot",
        "engine",
        "flow",
        "graph",
        "journal",
        "publish",
        "report",
        "snapshot",
    }
    | {"upkeep"},
}
IMPORTS_DOIT = {"commands", "engine", "dodo"}
# Names that say nothing about the content.
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


def package(path: Path) -> str:
    """The package of a module; a module at the top is its own."""
    relative = path.relative_to(PROJECT)
    return relative.parts[1].removesuffix(".py") if relative.parts[0] == "tasks" else "dodo"


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any place in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            if node.module == "tasks":
                yield from (f"tasks.{name.name}" for name in node.names)
            else:
                yield str(node.module)


def relative(path: Path) -> str:
    return str(path.relative_to(PROJECT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_packages_import_only_what_they_may(path: Path) -> None:
    here = package(path)
    if here == "__init__":
        assert list(imports(path)) == []
        return
    packages = {m.split(".")[1] for m in imports(path) if m.startswith("tasks.")} - {here}
    wrong = packages - MAY_IMPORT[here]
    assert wrong == set(), f"{here} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", [*SOURCES, PROJECT / "dodo.py"], ids=relative)
def test_only_the_engine_imports_doit(path: Path) -> None:
    outside = {module.split(".")[0] for module in imports(path)}
    if package(path) not in IMPORTS_DOIT:
        assert "doit" not in outside
    assert "dodo" not in outside


def test_every_package_has_a_rule() -> None:
    assert {package(path) for path in SOURCES} - {"__init__"} == set(MAY_IMPORT)


def test_imports_have_no_cycle() -> None:
    def reachable(name: str) -> set[str]:
        return MAY_IMPORT[name].union(*(reachable(other) for other in MAY_IMPORT[name]))

    for name in MAY_IMPORT:
        assert name not in reachable(name)


@pytest.mark.parametrize("module", ["subprocess", "plumbum"])
def test_programs_run_in_one_place(module: str) -> None:
    """Others may name the constants and exceptions of subprocess, nothing that starts one."""
    for path in SOURCES:
        if path.name in ("command.py", "sandbox_init.py"):
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"subprocess\.(run|call|check_\w+|getoutput)\b", text), relative(path)
        if module == "plumbum":
            assert "plumbum" not in {m.split(".")[0] for m in imports(path)}, relative(path)


def test_no_shell() -> None:
    for path in SOURCES:
        assert "shell=True" not in path.read_text(encoding="utf-8"), relative(path)


def test_dodo_only_names_things() -> None:
    lines = (PROJECT / "dodo.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 60


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_module_name_says_what_is_in_it(path: Path) -> None:
    assert path.stem not in EMPTY_NAMES
    assert path.parent.name not in EMPTY_NAMES


@pytest.mark.parametrize("path", [*SOURCES, PROJECT / "dodo.py"], ids=relative)
def test_public_names_have_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_a_test_module_is_imported_by_nothing(path: Path) -> None:
    """Tests share factories, fixtures and programs through tests/kit and tests/programs."""
    shared = ("tests.kit", "tests.programs")
    ours = {module for module in imports(path) if module.split(".")[0] == "tests"}
    assert {module for module in ours if not module.startswith(shared)} == set()


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_a_program_of_a_test_stands_in_a_file(path: Path) -> None:
    """The linters read it there, and a renamed module cannot break it unnoticed."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            with contextlib.suppress(SyntaxError):
                program = ast.walk(ast.parse(node.value))
                assert not any(isinstance(x, ast.Import | ast.ImportFrom) for x in program), (
                    node.value
                )


# A docstring says what a thing does or is: it starts with a verb or a noun.
INDIRECT = re.compile(r"(What|Whether|Where|Which|Who|Whom|Whose|When|Why|How|Those)\b")
DESCRIBED = [
    *SOURCES,  # not lab/build, which has Python's own modules
    *(p for f in ("lab", "bench", "tests/kit") for p in sorted((PROJECT / f).glob("*.py"))),
]


@pytest.mark.parametrize("path", DESCRIBED, ids=relative)
def test_docstring_starts_with_a_verb_or_a_noun(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    docstrings = [ast.get_docstring(node) or "" for node in nodes]
    assert [text for text in docstrings if INDIRECT.match(text)] == []


# State that breaks with a pool of workers: other threads see it, or only the main thread has it.
PROCESS_WIDE = re.compile(
    r"os\.environ(\[[^]]*\] *=[^=]|\.(pop|update|clear|setdefault)\()|del os\.environ|os\.putenv"
    r"|os\.chdir|os\.umask|signal\.(alarm|setitimer|SIGALRM)"
)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_state_of_the_process_is_changed(path: Path) -> None:
    # a program of its own, and the reminder of signals in the main thread
    if relative(path) in ("tasks/system/sandbox_init.py", "tasks/engine/signals.py"):
        return
    source = path.read_text(encoding="utf-8")
    assert [match[0] for match in PROCESS_WIDE.finditer(source)] == []
