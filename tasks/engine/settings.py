"""Changes between two states of the settings that a task reads, as data.

Values are plain data, as they come out of the validated config.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks import text
from tasks.causes import SettingChange
from tasks.text import without_password

_LONG = 60  # characters of one value


def masked(value: Any) -> Any:
    """The same data without the users and passwords of URLs; only this may be kept."""
    if isinstance(value, dict):
        return {key: masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return without_password(value) if isinstance(value, str) else value


def changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[SettingChange]:
    """The settings that differ: `package.use dev-libs/libyaml` with +static-libs."""
    for key in _keys(old, new):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if key == "chroot" and isinstance(before, dict) and isinstance(after, dict):
            yield from changes(before, after)  # the settings of a chroot: their names say enough
        else:
            yield from _changed(_portage_name(key), before, after)


def _changed(key: str, before: Any, after: Any) -> Iterator[SettingChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        for inner in _keys(before, after):
            if before.get(inner) != after.get(inner):
                either = before.get(inner, after.get(inner))
                blank: Any = [] if isinstance(either, list) else None
                yield from _changed(
                    f"{key} {inner}", before.get(inner, blank), after.get(inner, blank)
                )
    elif isinstance(before, list) and isinstance(after, list):
        yield SettingChange(
            key,
            added=tuple(_word(value) for value in after if value not in before),
            removed=tuple(_word(value) for value in before if value not in after),
        )
    else:
        yield SettingChange(key, _word(before), _word(after))


def _keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [*old, *(key for key in new if key not in old)]


def _portage_name(key: str) -> str:
    """`package_use` is Portage's package.use (portage(5))."""
    return key.replace("package_", "package.", 1) if key.startswith("package_") else key


def _word(value: Any) -> str:
    return "" if value is None else text.one_line(str(value), _LONG)
