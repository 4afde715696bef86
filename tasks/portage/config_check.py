"""What the chroot's own Portage says of the words in config.toml, before hours are spent.

The program that asks Portage (inside/check_config.py) runs inside; what it prints is a chroot's, so
it is read strictly and shown only after it was made harmless.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.config.tables import Config
from tasks.errors import BinmillError

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
)
_ANSWER_LIMIT = 1 << 20
_SAID_LIMIT = 300


@dataclass(frozen=True)
class Problem:
    """A word under `key` that Portage does not take; a build must not begin if it is `fatal`."""

    key: str
    word: str
    said: str
    fatal: bool


def request(config: Config, name: str) -> dict[str, Any]:
    """The words of a chroot, its base's among them, by key of [chroots.NAME]."""
    return config.effective(name).model_dump(include=set(KEYS))


def problems(answer: str) -> list[Problem]:
    """What the program inside has printed; raises BinmillError when it is not of its kind."""
    try:
        if len(answer) > _ANSWER_LIMIT:
            raise ValueError("too long")
        return [_problem(**each) for each in json.loads(answer)]
    except (ValueError, TypeError, RecursionError) as error:
        raise BinmillError(
            "the chroot's Portage gave no answer that can be read",
            "try it by hand: doit enter NAME -- emerge --info",
        ) from error


def _problem(key: object, word: object, said: object, fatal: object) -> Problem:
    if key not in KEYS or not isinstance(fatal, bool):
        raise ValueError("not a problem")
    return Problem(str(key), _harmless(word), _harmless(said), fatal)


def _harmless(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError("not a text")
    return "".join(c if c.isprintable() else "?" for c in text[:_SAID_LIMIT])


def worded(config: Config, name: str, problem: Problem) -> str:
    """One line: the table that has the word, the key, the word, what is wrong with it."""
    table = next(
        (link for link in reversed(config.lineage(name)) if _has(config, link, problem)), name
    )
    return f"[chroots.{table}] {problem.key}: {problem.word!r}: {problem.said}"


def _has(config: Config, link: str, problem: Problem) -> bool:
    """Whether a chroot's own table has a word, which may be two: an atom and what is said of it.

    Of a flag or a keyword, the sign before it may have been taken off.
    """
    value = getattr(config.chroots[link], problem.key)
    if isinstance(value, dict):
        atom, _, word = problem.word.partition(" ")
        return atom in value and (not word or any(word in each.split() for each in value[atom]))
    if isinstance(value, list):
        return any(problem.word in (each, each.lstrip("-"), *each.split()) for each in value)
    return bool(value)
