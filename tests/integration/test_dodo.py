"""The project's own dodo.py, on sites of its own: good, bad and missing configs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.doit_runs import CONFIG, doit
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.programs import doit_imports, doit_without_plugins


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path / "config.toml"


@pytest.mark.parametrize(
    "words", [("list",), ("list", "--all", "--status"), ("status",), ("why",), ("why", "lock")]
)
def test_looks_work_at_any_time(config: Path, words: tuple[str, ...]) -> None:
    assert "lock" in doit(config, *words)
    assert sorted(p.name for p in config.parent.iterdir()) == ["config.toml", "state"]
    assert [p.name for p in (config.parent / "state").iterdir()] == ["doit.db"]


@pytest.mark.parametrize("task", ["lock", "snapshot", "tree", "chroot:java", "client", "enter"])
def test_info_works_on_everything(config: Path, task: str) -> None:
    printed = doit(config, "info", task, code=1)
    assert "Traceback" not in printed
    assert "functools" not in printed
    assert task in printed


def test_a_misspelt_key_is_one_report_and_nothing_is_done(config: Path) -> None:
    config.write_text(CONFIG.replace("flavour", "flavor"))
    for words in ((), ("list",), ("why",), ("snapshot",)):
        printed = doit(config, *words, code=3)
        assert printed.startswith("ERROR: ")
        assert "did you mean 'flavour'?" in printed
        assert "Traceback" not in printed
    assert sorted(p.name for p in config.parent.iterdir()) == ["config.toml"]


def test_no_config(tmp_path: Path) -> None:
    printed = doit(tmp_path / "config.toml", "list", code=3)
    assert "does not exist" in printed
    assert "BINMILL_CONFIG" in printed


def test_all_mirrors_down(config: Path) -> None:
    printed = doit(config, "snapshot", code=1)
    assert "snapshot: FAILED: no mirror delivered gentoo-" in printed
    assert "Connection refused" in printed
    assert "Traceback" not in printed
    assert not (config.parent / "state" / "tree.git").exists()
    assert not any((config.parent / "state" / "work").iterdir())


def test_an_unknown_chroot_to_enter(config: Path) -> None:
    printed = doit(config, "enter", "jaba", code=1)
    assert "there is no chroot 'jaba'" in printed
    assert "one of: base, java" in printed


def test_a_damaged_lock(config: Path) -> None:
    (config.parent / "config.lock").write_text("x")
    assert "tree: it has not been made yet" in doit(config, "why")
    printed = doit(config, "tree", code=1)
    assert "tree: FAILED" in printed
    assert "config.lock cannot be used" in printed
    assert "Traceback" not in printed


def test_clean_deletes_nothing_by_default(config: Path) -> None:
    record = config.parent / "state" / "records" / "tree.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    for words in ((), ("--clean-all",), ("--clean-dep", "tree")):
        assert doit(config, "clean", *words, code=3).startswith("ERROR: ")
    assert record.exists()


def test_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    """One line that says how to install it, not an ImportError."""
    shutil.copy(PROJECT / "dodo.py", tmp_path)
    done = subprocess.run(
        python(doit_without_plugins),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "pip install -e" in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_for_a_program(config: Path) -> None:
    found = json.loads(doit(config, "status", "--json"))
    assert set(found) == {
        "chroots",
        "disk",
        "generations",
        "last_run",
        "lock",
        "newer",
        "problems",
        "tasks",
        "version",
    }
    assert found["version"] == 1
    assert sorted(found["chroots"]) == ["base", "java"]


def test_what_failed_is_remembered(config: Path) -> None:
    doit(config, "tree", code=1)
    shown = doit(config, "status")
    assert "last run  failed: snapshot" in shown
    latest = config.parent / "state" / "logs" / "latest"
    assert "no mirror delivered" in (latest / "snapshot.log").read_text()
    assert json.loads((latest / "journal").read_text().splitlines()[-1])["outcome"] == "failed"


def test_why_names_the_flag(config: Path) -> None:
    doit(config, "etc:java")
    config.write_text(CONFIG + 'package_use = { "dev-libs/libyaml" = ["static-libs"] }\n')
    before = {p: p.read_bytes() for p in config.parent.rglob("*") if p.is_file()}
    assert doit(config, "why", "etc:java") == (
        "etc:java: package.use changed: dev-libs/libyaml +static-libs\n"
    )
    assert {p: p.read_bytes() for p in config.parent.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("words", [["list"], ["status"], ["why"], ["list", "--all", "--status"]])
def test_looking_imports_nothing_slow(config: Path, words: list[str]) -> None:
    """What costs start-up time is imported where it is used."""
    slow = {"git", "requests", "urllib3", "rich", "plumbum", "zstandard", "gemato", "ssl"}
    done = subprocess.run(
        python(doit_imports, *words),
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "BINMILL_CONFIG": str(config)},
    )
    imported = set(done.stdout.rpartition("imported: ")[2].split())
    assert "tasks.graph" in imported
    assert not imported & slow
