"""Notes: what a run says while it works. A note has a code and fields, as an error has.

Its sentence (tasks/messages) is printed at once; the note itself goes to the journal of the run,
for programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from tasks import messages
from tasks.messages import Field
from tasks.system.terminal import say


@dataclass(frozen=True)
class Note:
    """One note: the code of its sentence, and what fills the blanks."""

    code: str
    fields: Mapping[str, Field] = field(default_factory=dict)


Listener = Callable[[Note], None]
# of the task that runs in this context: workers of a pool have one each
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def note(code: str, /, **fields: Field) -> None:
    """Print a sentence of the catalogue, indented below its task, and pass it to the listener."""
    say(f"  {messages.sentence(code, fields)}")
    listener = _listener.get()
    if listener is not None:
        listener(Note(code, fields))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Pass the notes of the block to a listener, too."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
