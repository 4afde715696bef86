"""Assertions on errors by type, code and fields; test_messages.py looks at the sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.messages import Field

Error = TypeVar("Error", bound=BinmillError)


@contextmanager
def refused(
    kind: type[Error], code: str, /, **fields: Field
) -> Iterator[pytest.ExceptionInfo[Error]]:
    """Expect an error of that very type and code, with at least these fields."""
    with pytest.raises(kind) as excinfo:
        yield excinfo
    error = excinfo.value
    assert (type(error), error.code) == (kind, code), error
    assert {name: error.fields.get(name) for name in fields} == fields, error


def distrusted(
    reason: str, **fields: Field
) -> AbstractContextManager[pytest.ExceptionInfo[NotTrusted]]:
    """Expect a signature to be refused for this reason."""
    return refused(NotTrusted, "signature-not-trusted", reason=reason, **fields)
