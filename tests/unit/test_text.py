"""Text for people."""

from __future__ import annotations

import pytest

from tasks.text import without_password


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.test/x", "https://a.test/x"),
        ("https://user:sesame@a.test/x", "https://a.test/x"),
        ("https://user:se@same@a.test", "https://a.test"),
        ("ssh://git@a.test/x@y", "ssh://a.test/x@y"),
        (
            "lost: http://u:p@a.test/x, http://u:p@b.test/y",
            "lost: http://a.test/x, http://b.test/y",
        ),
    ],
)
def test_without_password(url: str, expected: str) -> None:
    assert without_password(url) == expected
