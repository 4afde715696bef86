"""Bars and live lines belong on a terminal, and tear nothing there; a log gets lines only."""

from __future__ import annotations

import contextvars
import io
import os
import random
import shutil
import sys
import threading

import pytest

from tasks.system.progress import Progress
from tasks.system.terminal import Screen, live, redirect_output, say, write
from tests.kit.fake_terminal import FakeTerminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    new = FakeTerminal(columns=20, rows=6)
    size = os.terminal_size((new.columns, new.rows))
    monkeypatch.setattr(shutil, "get_terminal_size", lambda **_: size)
    return new


def test_progress_shows_no_bar_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("a file", 1 << 30) as bar:
        bar.advance(1 << 20)
    assert capsys.readouterr() == ("", "")


def test_progress_starts_at_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("file", 10 << 20, done=4 << 20) as progress:
        progress.advance(1 << 20)
        task = progress._bar.tasks[0]
        assert (task.completed, task.total) == (5 << 20, 10 << 20)


def test_say_prints_one_line_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("frozen: 20260101")
    assert capsys.readouterr().out == "frozen: 20260101\n"


def test_live_lines_are_below_all_others(terminal: FakeTerminal) -> None:
    screen = Screen(terminal)
    screen.write(terminal, "start\n")
    screen.live(terminal, " 1 dev-libs/a", "1 of 2")
    screen.write(terminal, "built dev-libs/a\n")
    assert terminal.lines == ["start", "built dev-libs/a", " 1 dev-libs/a", "1 of 2"]
    screen.live(terminal, " 1 b", " 2 c", "2 of 2")
    assert terminal.lines == ["start", "built dev-libs/a", " 1 b", " 2 c", "2 of 2"]
    screen.remove_live_lines()
    screen.remove_live_lines()
    screen.write(terminal, "done\n")
    assert terminal.lines == ["start", "built dev-libs/a", "done", ""]


def test_low_terminal_gets_the_first_lines_and_the_last_one(terminal: FakeTerminal) -> None:
    screen = Screen(terminal)
    for _ in range(3):
        screen.live(terminal, *(f" {n} package" for n in range(1, 20)), "total")
    assert terminal.lines == [" 1 package", " 2 package", " 3 package", " 4 package", "total"]


def test_live_line_is_never_wider_than_the_terminal(terminal: FakeTerminal) -> None:
    screen = Screen(terminal)
    for _ in range(3):
        screen.live(terminal, "x" * 100, "\u6f22" * 100, "a\x1b[5Bb\nc\td")
    assert terminal.lines == ["x" * 19, "\u6f22" * 9, "a?[5Bb c d"]


def test_lines_of_another_stream_do_not_tear_live_lines(terminal: FakeTerminal) -> None:
    """Standard output and error mostly are the same terminal."""
    screen = Screen(terminal)
    screen.live(terminal, "one", "two")
    other = io.StringIO()
    other.write = terminal.write  # type: ignore[method-assign]
    screen.write(other, "error\n")
    assert terminal.lines == ["error", "one", "two"]


def test_random_output_is_whole(terminal: FakeTerminal) -> None:
    """Whatever comes in which order: every line is there once, the live lines at the end."""
    chance = random.Random(5)  # noqa: S311 - no secret
    screen = Screen(terminal)
    lines: list[str] = []
    live_lines: list[str] = []
    for number in range(500):
        if chance.random() < 0.5:
            lines.append(f"line {number}" + "x" * chance.randrange(9))
            screen.write(terminal, lines[-1] + "\n")
        elif chance.random() < 0.8:
            live_lines = [f"live {number} {n}" for n in range(chance.randrange(1, 6))]
            screen.live(terminal, *live_lines)
        else:
            live_lines = []
            screen.remove_live_lines()
        assert terminal.lines == [*lines, *(live_lines or [""])]


def test_output_of_threads_is_whole(terminal: FakeTerminal) -> None:
    screen = Screen(terminal)

    def work(name: str) -> None:
        for number in range(50):
            screen.write(terminal, f"{name} {number}\n")
            screen.live(terminal, f"live {name}", "total")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    screen.remove_live_lines()
    expected = [f"{name} {number}" for name in "abcd" for number in range(50)]
    assert sorted(terminal.lines) == sorted([*expected, ""])


def test_worker_clears_the_live_line_of_its_parent(
    terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    Screen(terminal).live(terminal, "1 of 2")
    monkeypatch.setattr("tasks.system.terminal.parent_process", lambda: "the main process")
    Screen(terminal).write(terminal, "a note\n")
    assert terminal.lines == ["a note", ""]


def test_live_line_waits_for_the_end_of_a_bar() -> None:
    out = io.StringIO()
    screen = Screen(out)
    with screen.pause_live_lines():
        screen.live(out, "1 of 2")
    assert out.getvalue() == ""
    screen.live(out, "2 of 2")
    assert out.getvalue() == "\r\x1b[J2 of 2"


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
    assert (ours.getvalue(), theirs.getvalue()) == ("ours\n", "theirs\n\r\x1b[Jlive")
    assert capsys.readouterr().out == "of the process\n"
