"""The catalogue of sentences: every error and every note of a run, by its stable code.

The TOML files beside this one hold a table for each code:

    [stage-not-pinned]
    text = "{archive} is not the pinned file (SHA-512 {found:.16}...)"
    next = "check who wrote to it"       # optional: advice, for an error
    about = "..."                        # optional: a paragraph for docs/troubleshooting.md

A blank is a field of the error, with one of Python's format specifications or one of these: `list`
(all names), `few` (the first five), `sentences` (also, with semicolons), `lines` (each on a line
below), `count NOUN` (a number, or the length of a list, with its noun), `nonzero WORDS` (a comma,
the number and the words; nothing for 0), `size` (bytes), `span` (seconds), `utc` (a time, epoch
seconds). The content of a field is made printable. Files are read when a sentence is first needed:
`doit list` does not pay for them.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from tasks import text

Field = str | int | float | PathLike[str] | Sequence[str] | None
_LONGEST = 4000  # characters of one field
_LONGEST_ROWS = 100_000  # of one with a row for each of many things


@dataclass(frozen=True)
class Message:
    """A sentence with blanks, the advice that follows it, and a paragraph for the documentation."""

    text: str
    next: str = ""
    about: str = ""


@cache
def catalogue() -> Mapping[str, Message]:
    """Read all messages, by code; raises ValueError for a code that stands in two files."""
    import tomli

    messages: dict[str, Message] = {}
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for code, table in tomli.loads(path.read_text(encoding="utf-8")).items():
            if code in messages:
                raise ValueError(f"{path.name}: {code} stands in another file, too")
            messages[code] = Message(**table)
    return messages


def sentence(code: str, fields: Mapping[str, Field]) -> str:
    """The message of a code with its blanks filled in."""
    return _FORMATTER.vformat(catalogue()[code].text, (), fields)


def advice(code: str, fields: Mapping[str, Field]) -> str:
    """The advice of a code; "" if the catalogue has none."""
    return _FORMATTER.vformat(catalogue()[code].next, (), fields)


class _Formatter(string.Formatter):
    """str.format with the specifications of this catalogue."""

    def format_field(self, value: Any, spec: str) -> str:
        words = [str(each) for each in value] if isinstance(value, list | tuple) else []
        if spec.startswith("count "):
            number = value if isinstance(value, int) else len(value)
            return text.count(number, spec.removeprefix("count "))
        if spec.startswith("nonzero "):
            return f", {value} {spec.removeprefix('nonzero ')}" if value else ""
        if spec == "size":
            return text.size(int(value))
        if spec == "span":
            return text.span(float(value))
        if spec == "utc":
            return text.utc(float(value))
        if spec == "list":
            result = ", ".join(words)
        elif spec == "sentences":
            result = text.few(words, separator="; ")
        elif spec == "few":
            result = text.few(words)
        elif spec == "lines":
            result = text.lines(words)
        else:
            result = super().format_field(
                value if isinstance(value, int | float) else str(value), spec
            )
        return text.printable(result, _LONGEST_ROWS if spec == "lines" else _LONGEST)


_FORMATTER = _Formatter()
