"""A bar and a live line belong on a terminal: a log gets lines only."""

from __future__ import annotations

import contextvars
import io
import os
import sys
import threading

import pytest

from tasks.system.progress import Progress
from tasks.system.terminal import Screen, live, redirect_output, say, write


class Terminal(io.StringIO):
    """A stream that passes for a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_shows_no_bar_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("a file", 1 << 30) as bar:
        bar.advance(1 << 20)
    assert capsys.readouterr() == ("", "")


def test_progress_starts_at_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("file", 10 << 20, done=4 << 20) as progress:
        progress.advance(1 << 20)
        task = progress._bar.tasks[0]
        assert (task.completed, task.total) == (5 << 20, 10 << 20)


def test_say_prints_one_line_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("frozen: 20260101")
    assert capsys.readouterr().out == "frozen: 20260101\n"


def test_write_replaces_the_live_line_of_its_stream() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.live(out, "1 of 2")
    screen.write(out, "done\n")
    screen.write(out, "all done\n")
    assert out.getvalue() == "\r\x1b[K1 of 2\r\x1b[Kdone\nall done\n"


def test_live_line_waits_for_the_end_of_a_bar() -> None:
    out = io.StringIO()
    screen = Screen(out)
    with screen.pause_live_line():
        screen.live(out, "1 of 2")
    assert out.getvalue() == ""
    screen.live(out, "2 of 2")
    assert out.getvalue() == "\r\x1b[K2 of 2"


def test_write_goes_on_where_the_reader_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        write(pipe, "lost\n")
        write(pipe, "lost, too\n")


def test_screen_belongs_to_its_context(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = io.StringIO(), io.StringIO()

    def work() -> None:
        say("theirs")
        live(theirs, "live")

    with redirect_output(Screen(theirs, theirs)):
        context = contextvars.copy_context()
    with redirect_output(Screen(ours)):
        worker = threading.Thread(target=context.run, args=(work,))
        worker.start()
        worker.join()
        say("ours")
    say("of the process")
    assert (ours.getvalue(), theirs.getvalue()) == ("ours\n", "theirs\n\r\x1b[Klive")
    assert capsys.readouterr().out == "of the process\n"
