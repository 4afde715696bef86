"""What a chroot's Portage said of the config: read strictly, said in the config's own terms."""

from __future__ import annotations

import json

import pytest

from tasks.config.load import Config
from tasks.errors import BinmillError
from tasks.portage import config_check
from tasks.portage.config_check import Problem


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


def test_a_stack_asks_about_its_bases_words_too(config: Config) -> None:
    asked = config_check.request(config, "shop")
    assert set(asked) == set(config_check.KEYS)
    assert asked["packages"] == ["www-servers/nginx"]  # what the base builds, the base asks about
    assert asked["use"] == ["-gui", "gui"]
    assert asked["package_use"] == {"app-misc/tmux": ["debug", "-debug", "utempter"]}


@pytest.mark.parametrize(
    ("key", "word", "table"),
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
def test_a_problem_is_told_of_the_table_that_has_the_word(
    config: Config, key: str, word: str, table: str
) -> None:
    line = config_check.worded(config, "shop", Problem(key, word, "wrong", fatal=True))
    assert line == f"[chroots.{table}] {key}: {word!r}: wrong"


def test_an_answer_is_read() -> None:
    answer = json.dumps([{"key": "use", "word": "x", "said": "no", "fatal": False}])
    assert config_check.problems(answer) == [Problem("use", "x", "no", fatal=False)]
    assert config_check.problems("[]") == []


def test_what_a_chroot_says_does_no_harm_to_a_terminal() -> None:
    answer = json.dumps([{"key": "use", "word": "\x1b[2Jx", "said": "no\n" * 500, "fatal": True}])
    (found,) = config_check.problems(answer)
    assert found.word == "?[2Jx"
    assert found.said.isprintable()
    assert len(found.said) == 300


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{}x",
        "7",
        "null",
        "[7]",
        "[[]]",
        "[{}]",
        '{"key": "use"}',
        '[{"key": "nosuch", "word": "x", "said": "no", "fatal": true}]',
        '[{"key": "use", "word": 7, "said": "no", "fatal": true}]',
        '[{"key": "use", "word": "x", "said": "no", "fatal": "yes"}]',
        '[{"key": "use", "word": "x", "said": "no", "fatal": true, "more": 1}]',
        '[{"key": ["use"], "word": "x", "said": "no", "fatal": true}]',
        "[" * 100_000,
        "[]" + " " * (1 << 20),
    ],
    ids=range(15),
)
def test_an_answer_of_another_kind_is_refused(answer: str) -> None:
    with pytest.raises(BinmillError, match="no answer that can be read"):
        config_check.problems(answer)
