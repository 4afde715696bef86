"""A deadline ends reads of a socket, in any thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tasks.system import deadline
from tasks.system.deadline import Deadline, DeadlinePassed


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection; nothing is sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_block_that_ends_in_time_is_left_alone(ends: tuple[socket.socket, socket.socket]) -> None:
    with Deadline() as limit:
        limit.watch(ends[0])
        for _ in range(3):
            ends[1].send(b"x")
            with limit.within(60):
                assert ends[0].recv(1) == b"x"
        assert not limit.passed


def test_deadline_ends_a_read(ends: tuple[socket.socket, socket.socket]) -> None:
    with Deadline() as limit:
        limit.watch(ends[0])
        with pytest.raises(DeadlinePassed), limit.within(0.01):
            ends[0].recv(1)
        assert limit.passed


def test_deadline_ends_a_read_of_a_socket_that_lost_its_descriptor(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    with Deadline() as limit:
        limit.watch(ends[0])
        with (
            socket.socket(fileno=ends[0].detach()) as wrapped,  # as ssl does
            pytest.raises(DeadlinePassed),
            limit.within(0.01),
        ):
            wrapped.recv(1)


def test_deadline_ends_a_connection_made_after_it(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    with Deadline() as limit, pytest.raises(DeadlinePassed), limit.within(0.01):
        while not limit.passed:
            time.sleep(0.01)
        limit.watch(ends[0])
        assert ends[0].recv(1) == b""


def test_deadline_replaces_the_error_of_a_library(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    with Deadline() as limit:
        limit.watch(ends[0])
        with pytest.raises(DeadlinePassed) as late, limit.within(0.01):
            raise ValueError(ends[0].recv(1))
        assert isinstance(late.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [ValueError, TimeoutError, SystemExit, KeyboardInterrupt])
def test_error_of_the_block_is_raised_where_there_is_time(error: type[BaseException]) -> None:
    with Deadline() as limit, pytest.raises(error), limit.within(60):
        raise error


def test_thread_ends_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "_LOOK_SECONDS", 60.0)
    before = set(threading.enumerate())  # those of other tests may end meanwhile
    with Deadline():
        (thread,) = set(threading.enumerate()) - before
    thread.join(10)
    assert not thread.is_alive()
