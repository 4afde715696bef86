"""The one tree of user-facing errors.

`str(error)` is what a person reads: one line saying what failed, then, where there is one, what
to do next. Anything that is not a BinmillError is a bug and keeps its traceback.
"""

from __future__ import annotations


class BinmillError(Exception):
    """Something a person can act on: `message` says what failed, `hint` what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class ConfigError(BinmillError):
    """config.toml or config.lock cannot be used; nothing was done."""


class CommandFailed(BinmillError):
    """A program ended with a non-zero status, or ran out of its time."""


class OutOfMemory(CommandFailed):
    """A program failed, and the kernel has killed some for want of memory meanwhile."""


class NoRoom(BinmillError):
    """Something failed where the disk was full; the message says both."""


class HostLacks(BinmillError):
    """This machine does not have, or does not allow, what a task needs."""


class DownloadFailed(BinmillError):
    """No mirror gave the file."""


class NotTrusted(BinmillError):
    """A signature, digest, date or content was refused."""


class Stale(BinmillError):
    """Something that should exist by now does not: a task has to run first."""


class Busy(BinmillError):
    """Another run holds what this one needs."""
