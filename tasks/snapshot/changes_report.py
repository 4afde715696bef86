"""Changes between two frozen days, as text and as JSON (`doit log`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from tasks import text
from tasks.snapshot.changes import KINDS, Changes, PackageChange

_MARKS = {"new": "+", "gone": "-", "changed": ""}
_SINGULAR = {"eclasses": "eclass", "profiles": "profile", "licenses": "license"}


def as_text(
    changes: Changes, *, name: str = "gentoo", width: int = 100, rows: int | None = 9
) -> str:
    """Render for people: a headline, then each list in at most `rows` lines of `width` columns.

    With `rows` None everything, one item to a line. `1.0 -> 1.1` is the newest version before and
    after, live ones (9999) aside; `+` was added, `-` removed.
    """
    lists = {kind: list(map(_package_text, changes.of_kind(kind))) for kind in KINDS}
    for place, names in changes.others.items():
        lists[place] = [f"{_MARKS[how]}{path}" for path, how in names.items()]
    lists = {kind: items for kind, items in lists.items() if items}
    counts = _counts(changes, lists)
    counts[0] = f"{name} {changes.since} -> {changes.until}: {counts[0]}"
    head = _rows(counts, width, len(counts)).strip()
    parts = [
        f"{kind} ({len(items):,})\n{_rows(items, width, rows)}" for kind, items in lists.items()
    ]
    return "\n\n".join([head, *parts])


def as_json(changes: Changes) -> str:
    """Render for programs: the fields of Changes, with a list of packages for each of KINDS."""
    fields = {
        "since": changes.since,
        "until": changes.until,
        "files": changes.files,
        "derived": changes.derived,
        **{kind: list(map(asdict, changes.of_kind(kind))) for kind in KINDS},
        **changes.others,
    }
    return json.dumps(fields, indent=1)


def _counts(changes: Changes, lists: Mapping[str, list[str]]) -> list[str]:
    counts = [f"{text.count(changes.files, 'file')} ({changes.derived:,} derived)"]
    for kind, items in lists.items():
        noun = _SINGULAR.get(kind, kind) if len(items) == 1 else kind
        if kind in KINDS and len(counts) == 1:  # only the first one says that these are packages
            counts.append(f"{text.count(len(items), 'package')} {kind}")
        else:
            counts.append(f"{len(items):,} {noun}")
    return counts


def _package_text(package: PackageChange) -> str:
    if not package.before or not package.after:
        return "-".join([package.name, *package.after[-1:]])
    old, new = (
        [v for v in versions if "9999" not in v][-1:]  # the newest, if any is a release
        for versions in (package.before, package.after)
    )
    arrow = old and new and old != new
    parts = [f"{old[0]} -> {new[0]}"] if arrow else []
    parts += [f"+{version}" for version in package.added if not (arrow and [version] == new)]
    parts += [f"-{version}" for version in package.removed if not (arrow and [version] == old)]
    if package.changed:
        parts += [f"({' '.join(package.changed)} changed)"] if parts else package.changed
    return " ".join([package.name, *parts])


def _rows(items: list[str], width: int, rows: int | None) -> str:
    """Fill lines with items; what exceeds `rows` is only counted."""
    lines: list[list[str]] = []
    for item in items:
        if rows is None or not lines or len(", ".join([*lines[-1], item])) + 3 > width:
            lines.append([])
        lines[-1].append(item)
    left = sum(map(len, lines[rows:])) if rows is not None else 0
    body = ("\n  " if rows is None else ",\n  ").join(map(", ".join, lines[:rows]))
    return f"  {body}\n  and {left:,} more" if left else f"  {body}"
