"""Every key of config.toml, read off the models: what tests about all keys go through."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from tasks.config import Config


def keys(model: type[BaseModel] = Config, above: str = "") -> dict[str, Any]:
    """Dotted key -> annotation; `*` stands for a name that a person chooses."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        place, kind = f"{above}{name}", field.rebuild_annotation()
        inner = next(_models(kind), None)
        if inner is None:
            found[place] = kind
        elif typing.get_origin(kind) is dict:
            found |= keys(inner, f"{place}.*.")
        else:
            found |= keys(inner, f"{place}.")
    return found


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in typing.get_args(kind):
        yield from _models(part)
