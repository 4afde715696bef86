"""Problems in config.toml as data; `str` of a problem is its line in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks import messages
from tasks.messages import Field

_LONGEST_KEY = 64  # characters of a key that are shown


@dataclass(frozen=True)
class Problem:
    """One fault: its table and key ("" for the table as a whole), its code and fields.

    The line ends with a suggestion: the field `near`, or the one of `known` that is like `word`.
    """

    table: str
    key: str
    code: str
    fields: Mapping[str, Field]

    def __str__(self) -> str:
        place = " ".join(filter(None, (f"[{self.table}]" if self.table else "", self.key)))
        return f"{place}: {messages.sentence(self.code, self.fields)}{self._suggestion()}"

    def _suggestion(self) -> str:
        import difflib

        near, word, choices = (self.fields.get(name) for name in ("near", "word", "known"))
        if isinstance(word, str) and isinstance(choices, list):
            near = next(iter(difflib.get_close_matches(word, choices, n=1, cutoff=0.6)), None)
        if near:
            return f"; did you mean {near!r}?"
        return (
            f"; known: {', '.join(sorted(choices))}"
            if isinstance(choices, list) and choices
            else ""
        )


def problem(code: str, table: str, key: str = "", **fields: Field) -> Problem:
    """Build a problem; the code comes first, as in errors."""
    return Problem(table, key, code, fields)


def printable_key(key: str) -> str:
    """Write a key as it stands in the file, or quoted and cut where a terminal must not see it."""
    return key if key.isprintable() and len(key) <= _LONGEST_KEY else repr(key[:_LONGEST_KEY])


class BadValue(ValueError):
    """A value or table that a check of the models refuses: the code and fields of the problem."""

    def __init__(self, code: str, **fields: Field) -> None:
        super().__init__(code)
        self.code, self.fields = code, fields
