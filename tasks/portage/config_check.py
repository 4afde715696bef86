"""Check the values in config.toml with the chroot's own Portage, before hours are spent on a build.

inside/check_config.py runs in the chroot. Its answer is not trusted: it is parsed strictly, and its
sentences come from the catalogue.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.config.problem import Problem as ConfigProblem
from tasks.config.tables import Config
from tasks.errors import BinmillError
from tasks.text import one_line

PROGRAM = Path(__file__).with_name("inside") / "check_config.py"
INSIDE = "/run/binmill"  # where the program and the request are mounted
COMMAND = ("python3", "-I", f"{INSIDE}/{PROGRAM.name}", f"{INSIDE}/request.json")
KEYS = (
    "profile",
    "features",
    "packages",
    "use",
    "package_use",
    "accept_keywords",
    "package_accept_keywords",
    "accept_license",
    "package_license",
    "package_mask",
    "package_unmask",
    "test",
    "env",
)
CODES = (
    "profile-deprecated",
    "feature-unknown",
    "feature-required",
    "foreign-packages",
    "option-unworkable",
    "options-unknown",
    "compressor-missing",
    "compressor-unknown",
    "set-unknown",
    "flag-unknown",
    "package-ambiguous",
    "atom-malformed",
    "package-unknown",
    "atom-matches-nothing",
    "version-unknown",
    "package-lacks-flag",
    "keyword-unknown",
    "licence-unknown",
    "licence-group-unknown",
)
_LONGEST_ANSWER = 1 << 20
_LONGEST_TEXT = 300


@dataclass(frozen=True)
class Problem:
    """A value under `key` that Portage rejects; a `fatal` one must stop the build.

    `near` is a suggestion or "", `names` are what the sentence of `code` lists.
    """

    code: str
    key: str
    value: str
    near: str
    names: tuple[str, ...]
    fatal: bool


def request(config: Config, name: str) -> dict[str, Any]:
    """The values of a chroot, with those of its bases, by key of [chroots.NAME]."""
    return config.effective(name).model_dump(include=set(KEYS))


def problems(answer: str) -> list[Problem]:
    """Parse the answer of the program inside; raises BinmillError if it has another form."""
    try:
        if len(answer) > _LONGEST_ANSWER:
            raise ValueError("too long")
        return [_problem(**each) for each in json.loads(answer)]
    except (ValueError, TypeError, RecursionError) as error:
        raise BinmillError("check-answer-malformed") from error


def _problem(
    *, code: object, key: object, value: object, near: object, names: object, fatal: object
) -> Problem:
    if code not in CODES or key not in KEYS or not isinstance(fatal, bool):
        raise ValueError("not a problem")
    if not isinstance(names, list):
        raise ValueError("not a list")
    return Problem(str(code), str(key), _text(value), _text(near), tuple(map(_text, names)), fatal)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return one_line(value, _LONGEST_TEXT)


def describe(config: Config, name: str, problem: Problem) -> str:
    """One line: the table that has the value, the key, the value and what is wrong with it."""
    table = next(
        (link for link in reversed(config.lineage(name)) if _has(config, link, problem)), name
    )
    fields = {"value": problem.value, "near": problem.near, "names": problem.names}
    return str(ConfigProblem(f"chroots.{table}", problem.key, problem.code, fields))


def _has(config: Config, link: str, problem: Problem) -> bool:
    """Tell whether a chroot's own table has a value, which may be `ATOM WORD`.

    The check may have removed the sign before a flag or a keyword.
    """
    value = getattr(config.chroots[link], problem.key)
    if problem.key == "env":
        return problem.value.partition("=")[0] in value
    if isinstance(value, dict):
        atom, _, word = problem.value.partition(" ")
        return atom in value and (not word or any(word in each.split() for each in value[atom]))
    if isinstance(value, list):
        return any(problem.value in (each, each.lstrip("-"), *each.split()) for each in value)
    return bool(value)
