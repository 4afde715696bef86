"""doit's commands for people: help, errors, old spellings, info."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.site import Site
from tests.kit import stub_site
from tests.kit.stub_site import doit

COMMANDS = (
    *("diff", "distfile", "enter", "fsck", "gc", "generations", "log", "promote", "rollback"),
    *("serve", "show", "user"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return stub_site.create(tmp_path_factory.mktemp("stub") / "site")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_its_words(site: Site, command: str) -> None:
    text = doit(site.layout, "help", command)
    assert text.startswith(f"usage: doit {command}")
    assert text.strip() == doit(site.layout, command, "--help").strip()


def test_help_lists_the_commands(site: Site) -> None:
    text = doit(site.layout, "help")
    for command in (*COMMANDS, "info", "status", "why"):
        assert f" {command} " in text


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["rollback:base"], "doit rollback base"),
        (["rollback:base", "--to", "1"], "doit rollback base"),
        (["enter:java"], "doit enter java"),
    ],
)
def test_old_spelling_names_the_command(site: Site, words: list[str], instead: str) -> None:
    assert f"is a command, not a task: {instead}" in doit(site.layout, *words, code=3)


@pytest.mark.parametrize(
    "words",
    [
        ["rollback"],
        ["rollback", "base", "--too", "1"],
        ["user", "add"],
        ["enter", "base", "--reset", "--scratch"],
        ["distfile", "add"],
        ["gc", "everything"],
    ],
)
def test_words_that_cannot_be_used_end_with_3_and_the_usage(site: Site, words: list[str]) -> None:
    text = doit(site.layout, *words, code=3)
    assert f"next: doit {words[0]}" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("command", ["rollback", "promote", "diff", "generations", "enter", "show"])
def test_unknown_chroot_ends_with_1_and_the_known_ones(site: Site, command: str) -> None:
    text = doit(site.layout, command, "basse", code=1)
    assert f"{command}: FAILED:" in text
    assert "[chroot-unknown]" in text
    assert "base, java, appliance" in text


def test_error_of_a_command_has_a_code_and_advice(site: Site) -> None:
    text = doit(site.layout, "rollback", "base", code=1)
    assert "[" in text.splitlines()[0]
    assert text.splitlines()[1].startswith("  next: ")


def test_info_shows_record_inputs_results_and_cause(site: Site) -> None:
    text = doit(site.layout, "info", "tree", "mount:base")
    assert f"commit = {stub_site.COMMIT}" in text
    assert f"made      {site.layout.export(stub_site.COMMIT)}" in text
    assert f"reads     {site.layout.lock}" in text
    assert "would not run: it is up to date" in text
    assert "mount:base: enter base and record its mounts and environment" in text
    assert "record    none" in text
    assert "reads     etc:base" in text
    assert "would run: it has not run yet" in text
    assert "<" not in text  # no Python object


def test_info_of_a_task_that_does_not_exist_ends_with_3(site: Site) -> None:
    assert "did you mean mount:base?" in doit(site.layout, "info", "mount:bas", code=3)


def test_why_as_json_has_causes_as_data(site: Site) -> None:
    rows = json.loads(doit(site.layout, "why", "--json", "mount:base"))
    assert {row["task"] for row in rows} == {"chroot:base", "etc:base", "mount:base"}
    assert {row["cause"]["code"] for row in rows} == {"cause-never-made"}


def test_commands_leave_no_run_behind(site: Site) -> None:
    before = sorted(site.layout.logs.glob("*")) if site.layout.logs.exists() else []
    doit(site.layout, "generations")
    doit(site.layout, "gc")
    after = sorted(site.layout.logs.glob("*")) if site.layout.logs.exists() else []
    assert before == after


def test_site_without_a_config_is_one_line(tmp_path: Path, site: Site) -> None:
    layout = type(site.layout)(tmp_path, tmp_path / "state")
    text = doit(layout, "generations", code=3)
    assert "config.toml does not exist" in text
    assert "Traceback" not in text
