"""A bar belongs on a terminal: a log gets lines only."""

from __future__ import annotations

import pytest

from tasks.system.terminal import Progress, say


def test_no_bar_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("a file", 1 << 30) as bar:
        bar.advance(1 << 20)
    assert capsys.readouterr() == ("", "")


def test_say_is_one_line_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("frozen: 20260101")
    assert capsys.readouterr().out == "frozen: 20260101\n"
