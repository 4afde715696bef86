"""What changed between two values of the config, in a person's words.

Values are plain data, as they come out of the validated config.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.system.http import public

_LONG = 60  # characters of one value


def masked(value: Any) -> Any:
    """The same data without the users and passwords of URLs; this is what may be kept."""
    if isinstance(value, dict):
        return {key: masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return public(value) if isinstance(value, str) else value


def difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The keys that differ, each with how: `package.use changed: dev-libs/libyaml +static-libs`.

    "" where nothing differs. Keys of the tables between are left out where there is one only.
    """
    return "; ".join(_tables(old, new))


def _tables(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in _keys(old, new):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key == "chroot" and isinstance(before, dict) and isinstance(after, dict):
            yield from _tables(before, after)  # the settings of a chroot: their names tell enough
        else:
            yield f"{_portage_name(key)} changed: {_how(before, after)}"


def _how(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        parts = []
        for key in _keys(before, after):
            if before.get(key) != after.get(key):
                blank: Any = [] if isinstance(before.get(key, after.get(key)), list) else None
                parts.append(f"{key} {_how(before.get(key, blank), after.get(key, blank))}")
        return ", ".join(parts)
    if isinstance(before, list) and isinstance(after, list):
        added = [_flag("+", v) for v in after if v not in before]
        gone = [f"(no longer {_word(v)})" for v in before if v not in after]
        return " ".join([*added, *gone]) or "in another order"
    return f"{_word(before)} -> {_word(after)}"


def _flag(sign: str, value: Any) -> str:
    word = _word(value)
    return word if word.startswith("-") else sign + word


def _keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [*old, *(key for key in new if key not in old)]


def _portage_name(key: str) -> str:
    """`package_use` is Portage's package.use (portage(5))."""
    return key.replace("package_", "package.", 1) if key.startswith("package_") else key


def _word(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value)
    return text if len(text) <= _LONG else text[: _LONG - 3] + "..."
