"""A time limit for a call: what is raised, and what is put back."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tasks.errors import DownloadFailed
from tasks.system import deadline
from tasks.system.deadline import within

LATE = DownloadFailed("too slow")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_in_time() -> None:
    assert within(60, lambda: 3, LATE) == 3


def test_too_late() -> None:
    with pytest.raises(DownloadFailed, match="too slow"):
        within(0.01, lambda: time.sleep(30), LATE)


@pytest.mark.parametrize("error", [ValueError, TimeoutError, SystemExit, KeyboardInterrupt])
def test_what_the_call_raises_itself(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(error):
        within(60, fail, LATE)


def test_whatever_a_library_makes_of_it() -> None:
    def wrapped() -> None:
        try:
            time.sleep(30)
        except OSError as error:
            raise RuntimeError("connection lost") from error

    with pytest.raises(DownloadFailed, match="too slow"):
        within(0.01, wrapped, LATE)


def test_it_rings_again_where_it_was_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "_AGAIN_SECONDS", 0.01)
    heard = []

    def deaf() -> None:
        with contextlib.suppress(OSError):
            time.sleep(30)
        heard.append(1)
        time.sleep(30)

    with pytest.raises(DownloadFailed, match="too slow"):
        within(0.01, deaf, LATE)
    assert heard == [1]


def test_somebody_elses_timer_goes_on() -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rang.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60, 7)
        with pytest.raises(DownloadFailed):
            within(0.01, lambda: time.sleep(30), LATE)
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 0 < left < 60
        assert interval == pytest.approx(7)
        assert rang == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_no_limit_outside_of_the_main_thread() -> None:
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(within(0.001, lambda: 3, LATE)))
    thread.start()
    thread.join()
    assert got == [3]
