"""The answer of a chroot's Portage about a config: parsed strictly, located in the config."""

from __future__ import annotations

import ast
import dataclasses
import json
from typing import Any

import pytest

from tasks import messages
from tasks.config.tables import Config
from tasks.errors import BinmillError
from tasks.portage import config_check
from tasks.portage.config_check import Problem
from tests.kit.refused import refused

UNKNOWN = Problem("flag-unknown", "use", "x", near="", names=(), fatal=True)


def answer(**changes: Any) -> str:
    """The answer with one problem, UNKNOWN, or with other values in it."""
    return json.dumps([{**dataclasses.asdict(UNKNOWN), **changes}])


@pytest.fixture
def config() -> Config:
    """A base, a stack, and a stack on that."""
    return Config.model_validate(
        {
            "keys": {"k": {"file": "k", "fingerprints": ["A" * 40]}},
            "mirrors": {"gentoo": ["https://mirror.example"]},
            "tree": {"key": "k"},
            "seeds": {"s": {"flavour": "openrc", "key": "k"}},
            "chroots": {
                "base": {
                    "seed": "s",
                    "profile": "default",
                    "packages": ["app-misc/tmux"],
                    "use": ["-gui"],
                    "package_use": {"app-misc/tmux": ["debug"]},
                },
                "java": {"base": "base", "use": ["gui"], "accept_license": ["-* @FREE"]},
                "shop": {
                    "base": "java",
                    "packages": ["www-servers/nginx"],
                    "package_use": {"app-misc/tmux": ["-debug", "utempter"]},
                },
            },
        }
    )


def test_request_of_a_stack_has_values_of_its_bases(config: Config) -> None:
    request = config_check.request(config, "shop")
    assert set(request) == set(config_check.KEYS)
    assert request["packages"] == ["www-servers/nginx"]  # not inherited
    assert request["use"] == ["-gui", "gui"]
    assert request["package_use"] == {"app-misc/tmux": ["debug", "-debug", "utempter"]}


@pytest.mark.parametrize(
    ("key", "value", "table"),
    [
        ("profile", "default", "base"),
        ("use", "gui", "java"),
        ("accept_license", "@FREE", "java"),
        ("package_use", "app-misc/tmux", "shop"),
        ("package_use", "app-misc/tmux debug", "base"),
        ("package_use", "app-misc/tmux utempter", "shop"),
        ("packages", "www-servers/nginx", "shop"),
        ("features", "from nowhere", "shop"),
    ],
)
def test_problem_names_the_table_that_has_the_value(
    config: Config, key: str, value: str, table: str
) -> None:
    line = config_check.describe(config, "shop", dataclasses.replace(UNKNOWN, key=key, value=value))
    assert line == f"[chroots.{table}] {key}: {value!r}: no package has this flag"


def test_answer_is_parsed() -> None:
    assert config_check.problems(answer()) == [UNKNOWN]
    assert config_check.problems(answer(names=["a", "b"], near="y", fatal=False)) == [
        Problem("flag-unknown", "use", "x", "y", ("a", "b"), fatal=False)
    ]
    assert config_check.problems("[]") == []


def test_problem_ends_with_its_suggestion(config: Config) -> None:
    (problem,) = config_check.problems(answer(near="y"))
    assert config_check.describe(config, "shop", problem).endswith("; did you mean 'y'?")


def test_program_inside_uses_the_codes_that_are_accepted() -> None:
    source = ast.parse(config_check.PROGRAM.read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(source) if isinstance(node, ast.Constant)}
    assert set(config_check.CODES) == texts & messages.catalogue().keys()


def test_answer_cannot_control_a_terminal(config: Config) -> None:
    hostile = answer(value="\x1b[2Jx", near="\x1b]0;x\x07", names=["no\n" * 500])
    (problem,) = config_check.problems(hostile)
    assert len(problem.names[0]) == 300
    line = config_check.describe(
        config, "shop", dataclasses.replace(problem, code="version-unknown")
    )
    assert line.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}x",
        "7",
        "null",
        "[7]",
        "[[]]",
        "[{}]",
        '{"key": "use"}',
        answer(code="config-missing"),
        answer(code=["flag-unknown"]),
        answer(key="nosuch"),
        answer(key=["use"]),
        answer(value=7),
        answer(near=None),
        answer(names="x"),
        answer(names=[7]),
        answer(fatal="yes"),
        answer(more=1),
        "[" * 100_000,
        "[]" + " " * (1 << 20),
    ],
    ids=range(20),
)
def test_answer_of_another_form_is_refused(text: str) -> None:
    with refused(BinmillError, "check-answer-malformed"):
        config_check.problems(text)
