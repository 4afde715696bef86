"""Pipes that are read ahead."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest

from tasks.system import read_ahead
from tasks.system.read_ahead import ReadAhead

CHUNK = bytes(range(256)) * 32


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def start_writing(writing: int, chunks: int) -> threading.Thread:
    """Write so many chunks in a thread and close; stop earlier if the reader has closed."""

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            for _ in range(chunks):
                os.write(writing, CHUNK)
        os.close(writing)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_everything_comes_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with os.fdopen(reading, "rb", closefd=False) as stream, ReadAhead(stream) as ahead:
        start_writing(writing, 500)
        data = b"".join(iter(lambda: ahead.read(10_000), b""))
        assert ahead.read(10_000) == b""
    assert data == CHUNK * 500


def test_never_more_than_is_asked_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    with os.fdopen(reading, "rb", closefd=False) as stream, ReadAhead(stream) as ahead:
        start_writing(writing, 10)
        parts = list(iter(lambda: ahead.read(1000), b""))
    assert max(map(len, parts)) == 1000
    assert b"".join(parts) == CHUNK * 10


def test_the_writer_goes_on_while_nobody_reads(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    chunks = (16 << 20) // len(CHUNK)  # sixteen times what a pipe holds
    with os.fdopen(reading, "rb", closefd=False) as stream, ReadAhead(stream) as ahead:
        writer = start_writing(writing, chunks)
        writer.join(30)
        assert not writer.is_alive()
        assert sum(map(len, iter(lambda: ahead.read(1 << 20), b""))) == 16 << 20


def test_but_not_for_ever(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_AHEAD", 2)
    reading, writing = pipe
    with os.fdopen(reading, "rb", closefd=False) as stream, ReadAhead(stream) as ahead:
        writer = start_writing(writing, (16 << 20) // len(CHUNK))
        writer.join(0.5)
        assert writer.is_alive()
        assert sum(map(len, iter(lambda: ahead.read(1 << 20), b""))) == 16 << 20


def test_who_leaves_early_leaves_no_reader(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_ahead, "_AHEAD", 2)
    reading, writing = pipe
    before = set(threading.enumerate())
    with os.fdopen(reading, "rb", closefd=False) as stream:
        with ReadAhead(stream) as ahead:
            (reader,) = set(threading.enumerate()) - before
            start_writing(writing, 1000)
            assert ahead.read(1000)
            assert reader.is_alive()
        reader.join(30)
        assert not reader.is_alive()
