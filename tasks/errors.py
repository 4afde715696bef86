"""The one tree of errors for people.

An error has a stable code and fields, for programs; its sentence and the advice that follows stand
in the catalogue (tasks/messages) under that code. Any other exception is a bug and keeps its
traceback.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tasks import messages
from tasks.messages import Field


class BinmillError(Exception):
    """Something that a person can act on: `message` says what failed, `hint` what to do next."""

    def __init__(self, code: str, /, **fields: Field) -> None:
        super().__init__(code)
        self.code, self.fields = code, fields

    @property
    def message(self) -> str:
        """One sentence: what failed and why."""
        return messages.sentence(self.code, self.fields)

    @property
    def hint(self) -> str:
        """The advice on the next step; "" if there is none."""
        return messages.advice(self.code, self.fields)

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class ConfigError(BinmillError):
    """config.toml or config.lock cannot be used; nothing was done."""


class CommandFailed(BinmillError):
    """A program ended with a non-zero status, or exceeded its time limit."""


class OutOfMemory(CommandFailed):
    """A program failed, and the kernel killed processes for lack of memory meanwhile."""


class DiskFull(BinmillError):
    """Something failed while the disk was full; the message says both."""


class HostLacks(BinmillError):
    """This machine lacks, or does not allow, something that a task needs."""


class DownloadFailed(BinmillError):
    """No mirror delivered the file."""


class NotTrusted(BinmillError):
    """A signature, digest, date or content was refused."""


class Stale(BinmillError):
    """Something that should exist by now does not: a task has to run first."""


class Busy(BinmillError):
    """Another run holds a lock that this one needs."""


def failure(action: Callable[[], object], subject: str) -> BinmillError | None:
    """Run an action; returns the error that a person can act on. A bug keeps its traceback."""
    try:
        action()
    except BinmillError as error:
        return error
    except PermissionError as error:
        code = "permission-denied" if os.geteuid() == 0 else "permission-denied-user"
        return BinmillError(code, subject=subject, path=str(error.filename))
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        where = f": {error.filename}" if error.filename is not None else ""
        return BinmillError("system-error", subject=subject, reason=reason, where=where)
    return None


def describe(error: BinmillError) -> str:
    """An error as the terminal shows it: its sentence with its code, then what to do next."""
    first, newline, rest = error.message.partition("\n")
    hint = f"\n  next: {error.hint}" if error.hint else ""
    return f"{first} [{error.code}]{newline}{rest}{hint}"
