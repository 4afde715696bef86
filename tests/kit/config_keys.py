"""Every key of config.toml, from the models, for tests of all keys."""

from __future__ import annotations

import contextlib
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from tasks.config.tables import Config


def keys(model: type[BaseModel] = Config, above: str = "") -> dict[str, Any]:
    """Dotted key -> annotation; `*` stands for a name that a person chooses."""
    kinds: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        place, kind = f"{above}{name}", field.rebuild_annotation()
        inner = next(_models(kind), None)
        if inner is None:
            kinds[place] = kind
        elif typing.get_origin(kind) is dict:
            kinds |= keys(inner, f"{place}.*.")
        else:
            kinds |= keys(inner, f"{place}.")
    return kinds


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in typing.get_args(kind):
        yield from _models(part)


Put = Callable[[str], Any]


def strings(place: str, kind: Any) -> Iterator[tuple[str, Put]]:
    """Every place in a key's value that takes a free string, with a function to put one there."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is str or origin is typing.Literal:
        yield place, lambda text: text
    elif origin is typing.Annotated:
        yield from strings(place, parts[0])
    elif origin is list:
        for inner, put in strings(f"{place}[]", parts[0]):
            yield inner, lambda text, put=put: [put(text)]  # type: ignore[misc]
    elif origin is dict:
        other = plain(parts[1])
        yield f"{place}{{}}", lambda text: {text: other}
        for inner, put in strings(f"{place}.ENTRY", parts[1]):
            name = plain(parts[0])
            yield inner, lambda text, put=put, name=name: {name: put(text)}  # type: ignore[misc]
    elif origin in (typing.Union, types.UnionType):
        for part in parts:
            yield from strings(place, part)


PLAIN = ("zzz", "ZZZ", "https://zzz.example", "C" * 40, "site:zzz", "127.0.0.1:33", "public", "a/b")


FILLER: tuple[Any, ...] = (
    "yyy",
    "yyy/yyy",
    "YYY",
    "https://yyy.example",
    "D" * 40,
    "public",
    [],
    ["yyy"],
    1,
)


def plain(kind: Any) -> Any:
    """A harmless value of a kind, for the keys beside the tested one."""
    for value in FILLER:
        with contextlib.suppress(ValidationError):
            return TypeAdapter(kind).validate_python(value, strict=True)
    raise AssertionError(f"no harmless value is known for {kind}; add one to FILLER")
