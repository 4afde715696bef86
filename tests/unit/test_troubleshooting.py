"""docs/troubleshooting.md has every error that the catalogue has. UPDATE_GOLDEN=1 writes it."""

from __future__ import annotations

import os

from tests.kit.troubleshooting import END, PAGE, START, errors


def test_page_has_every_error_of_the_catalogue() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    assert start and end
    wanted = f"{before}{start}\n\n{errors()}\n{end}{after}"
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(wanted, encoding="utf-8")
        text = wanted
    assert text == wanted
