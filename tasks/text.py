"""Text for people: the one place where strings from outside become printable, and how lists,
counts and sizes are written."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

_FEW = 5  # names of a list that a sentence shows
_SECRETS = (
    (re.compile(rb"(?<=://)[^/\s@'\"]+@"), b"***@"),
    (re.compile(rb"(?i)((?:proxy-)?authorization\s*[:=]\s*)[^\r\n]+"), rb"\1***"),
)


def printable(text: str, limit: int | None = None) -> str:
    """Replace what a terminal would obey or not show; cut to `limit` characters.

    Newlines stay: callers that need one line split first.
    """
    clean = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return clean if limit is None or len(clean) <= limit else clean[: limit - 3] + "..."


def one_line(text: str, limit: int | None = None) -> str:
    """Like `printable`, with newlines and tabs as blanks."""
    return printable(" ".join(text.split("\n")).replace("\t", " "), limit)


def without_password(text: str) -> str:
    """Remove user and password from a URL, or from the URLs in a text."""
    return re.sub(r"//[^/]*@", "//", text)


def without_secrets(text: bytes) -> bytes:
    """Mask users and passwords of URLs, and Authorization headers, in a log."""
    for mark, instead in _SECRETS:
        text = mark.sub(instead, text)
    return text


def json_data(value: Any) -> Any:
    """The same data as JSON has it, with secrets masked."""
    if isinstance(value, dict):
        return {key: json_data(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_data(inner) for inner in value]
    if isinstance(value, int | float | None):
        return value
    return without_secrets(str(value).encode("utf-8", "replace")).decode("utf-8", "replace")


def count(number: int, noun: str) -> str:
    """Write a number with its noun: `1 package`, `3 packages`, `1,204 files`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def few(names: Iterable[str], most: int = _FEW, separator: str = ", ") -> str:
    """Join names with commas; of more than `most`, say how many are left out."""
    items = list(names)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def lines(rows: Sequence[str]) -> str:
    """Put rows below a sentence, each on a line of its own and indented."""
    return "".join(f"\n  {row}" for row in rows)


def size(number: int) -> str:
    """Write bytes in decimal units: `812 B`, `31 kB`, `4.2 MB`, `1.5 GB`."""
    power = min(3, max(0, len(str(number)) - 1) // 3)
    amount = number / 1000**power
    return f"{amount:.{1 if power > 1 else 0}f} {('B', 'kB', 'MB', 'GB')[power]}"


def span(seconds: float) -> str:
    """Write a duration: `4.2 s`, `12 min 3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def utc(timestamp: float) -> str:
    """Write a time in epoch seconds: `2026-01-16 00:45 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(timestamp))


def ago(seconds: float) -> str:
    """Write an age in its largest unit: `3 days`, `5 h`, `12 min`, `8 s`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
