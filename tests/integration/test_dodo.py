"""The project's dodo.py on sites with good, bad and missing configs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.engine.spelling import commands
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
def test_looking_works_before_anything_has_run(config: Path, words: tuple[str, ...]) -> None:
    assert "lock" in doit(config, *words)
    assert sorted(p.name for p in config.parent.iterdir()) == ["config.toml", "state"]
    assert [p.name for p in (config.parent / "state").iterdir()] == ["doit.db"]


@pytest.mark.parametrize("task", ["lock", "snapshot", "tree", "chroot:java", "client"])
def test_info_shows_every_kind_of_task_before_it_has_run(config: Path, task: str) -> None:
    printed = doit(config, "info", task)
    assert printed.startswith(f"{task}: ")
    assert "<" not in printed  # no objects of Python


@pytest.mark.parametrize(
    ("words", "next_words"),
    [
        (("rollback:base",), "doit rollback base"),
        (("info", "enter"), "enter"),
        (("enter:java",), "doit enter java"),
    ],
)
def test_command_in_the_spelling_of_a_task_names_the_command(
    config: Path, words: tuple[str, ...], next_words: str
) -> None:
    printed = doit(config, *words, code=3)
    assert printed.startswith("ERROR: ")
    assert next_words in printed


@pytest.mark.parametrize("command", sorted(commands()))
def test_help_describes_every_command(config: Path, command: str) -> None:
    assert len(doit(config, "help", command).splitlines()) > 2


def test_misspelt_key_is_reported_and_nothing_runs(config: Path) -> None:
    config.write_text(CONFIG.replace("flavour", "flavor"))
    for words in ((), ("list",), ("why",), ("snapshot",)):
        printed = doit(config, *words, code=3)
        assert printed.startswith("ERROR: ")
        assert "did you mean 'flavour'?" in printed
        assert "Traceback" not in printed
    assert sorted(p.name for p in config.parent.iterdir()) == ["config.toml"]


def test_missing_config_is_reported(tmp_path: Path) -> None:
    printed = doit(tmp_path / "config.toml", "list", code=3)
    assert "does not exist" in printed
    assert "BINMILL_CONFIG" in printed


def test_snapshot_without_a_reachable_mirror_fails(config: Path) -> None:
    printed = doit(config, "snapshot", code=1)
    assert "snapshot: FAILED: no mirror delivered gentoo-" in printed
    assert "Connection refused" in printed
    assert "Traceback" not in printed
    assert not (config.parent / "state" / "tree.git").exists()
    assert not any((config.parent / "state" / "work").iterdir())


def test_unknown_chroot_is_refused_with_the_known_ones(config: Path) -> None:
    printed = doit(config, "enter", "jaba", code=1)
    assert "[chroot-unknown]" in printed
    assert "base, java" in printed


def test_damaged_lock_stops_its_readers(config: Path) -> None:
    (config.parent / "config.lock").write_text("x")
    reasons = {each["task"]: each["cause"]["code"] for each in why(config)}
    assert reasons["tree"] == "cause-never-made"
    printed = doit(config, "tree", code=1)
    assert re.search(r"^tree: FAILED: .*config\.lock.* \[[a-z-]+\]$", printed, re.MULTILINE)
    assert "Traceback" not in printed


def why(config: Path, *words: str) -> list[dict[str, Any]]:
    reasons: list[dict[str, Any]] = json.loads(doit(config, "why", "--json", *words))
    return reasons


def test_why_has_the_same_order_in_each_process(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = set()
    for hash_seed in ("1", "2", "3"):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        orders.add(tuple(reason["task"] for reason in why(config)))
    (order,) = orders
    assert order.index("lock") < order.index("tree") < order.index("check:base")


def test_clean_without_names_deletes_nothing(config: Path) -> None:
    record = config.parent / "state" / "records" / "tree.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    for words in ((), ("--clean-all",), ("--clean-dep", "tree")):
        assert doit(config, "clean", *words, code=3).startswith("ERROR: ")
    assert record.exists()


def test_checkout_that_is_not_installed_is_reported(tmp_path: Path) -> None:
    """One line that says how to install it, not an ImportError."""
    shutil.copy(PROJECT / "dodo.py", tmp_path)
    result = subprocess.run(
        python(doit_without_plugins),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 3
    assert "pip install -e" in result.stderr
    assert result.stderr.count("\n") == 1


def test_status_json_has_stable_keys(config: Path) -> None:
    status = json.loads(doit(config, "status", "--json"))
    assert set(status) == {
        "chroots",
        "disk",
        "binhosts",
        "last_run",
        "lock",
        "updates",
        "problems",
        "tasks",
        "version",
    }
    assert status["version"] == 2
    assert sorted(status["chroots"]) == ["base", "java"]


def test_failed_run_is_in_the_journal(config: Path) -> None:
    doit(config, "tree", code=1)
    status = doit(config, "status")
    assert "last run  failed: snapshot" in status
    latest = config.parent / "state" / "logs" / "latest"
    assert "no mirror delivered" in (latest / "snapshot.log").read_text()
    assert json.loads((latest / "journal").read_text().splitlines()[-1])["outcome"] == "failed"


def test_why_names_the_changed_flag(config: Path) -> None:
    doit(config, "etc:java")
    config.write_text(CONFIG + 'package_use = { "dev-libs/libyaml" = ["static-libs"] }\n')
    before = {p: p.read_bytes() for p in config.parent.rglob("*") if p.is_file()}
    (reason,) = why(config, "etc:java")
    (change,) = reason["cause"]["changes"]
    assert (reason["cause"]["code"], change["key"], change["added"]) == (
        "cause-settings",
        "package.use dev-libs/libyaml",
        ["static-libs"],
    )
    assert doit(config, "why", "etc:java").startswith("etc:java: ")
    assert {p: p.read_bytes() for p in config.parent.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("words", [["list"], ["status"], ["why"], ["list", "--all", "--status"]])
def test_looking_imports_no_slow_module(config: Path, words: list[str]) -> None:
    """Modules that cost start-up time are imported where they are used."""
    slow = {"git", "requests", "urllib3", "rich", "plumbum", "zstandard", "gemato", "ssl"}
    result = subprocess.run(
        python(doit_imports, *words),
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "BINMILL_CONFIG": str(config)},
    )
    imported = set(result.stdout.rpartition("imported: ")[2].split())
    assert "tasks.graph" in imported
    assert not imported & slow
