"""Causes: the reasons why a task would run, as data. Their sentences are in the catalogue.

`code` names the sentence; the dataclass's fields are what `doit why --json` prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tasks import messages
from tasks.domain import Gap
from tasks.messages import Field

_DIGEST, _SHORT = 40, 12  # the least characters of a digest, and those that a sentence has of it


@dataclass(frozen=True)
class Cause:
    """The reason why one task would run.

    A subclass with fields is a dataclass; one without needs no methods of its own.
    """

    code: ClassVar[str] = ""
    same_result: ClassVar[bool] = False  # the task runs, and leaves the record that it has

    @property
    def fields(self) -> Mapping[str, Field]:
        """The fields of the sentence."""
        return asdict(self)

    def __str__(self) -> str:
        return messages.sentence(self.code, self.fields)

    def plain(self) -> dict[str, Any]:
        """The cause as plain data, for programs."""
        return {"code": self.code, **asdict(self)}


class NamedOnCommandLine(Cause):
    """It was named on the command line, and looks outside for something newer."""

    code: ClassVar[str] = "cause-named"


class NeverMade(Cause):
    """It has never run here."""

    code: ClassVar[str] = "cause-never-made"


class NotRemembered(Cause):
    """Its last run failed, or `doit forget` cleared it."""

    code: ClassVar[str] = "cause-not-remembered"


@dataclass(frozen=True)
class SettingChange:
    """A setting of config.toml that changed.

    `key` is its name, with the entry's name behind it for a table: `package.use dev-libs/libyaml`.
    For lists, `added` and `removed` have the words, and neither where only the order changed; for
    other values, `before` and `after` are the old and the new one, "" for none.
    """

    key: str
    before: str = ""
    after: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [word if word.startswith("-") else f"+{word}" for word in self.added]
        words += [f"(no longer {word})" for word in self.removed]
        if not words and (self.before or self.after):
            words = [f"{self.before or 'nothing'} -> {self.after or 'nothing'}"]
        return f"{self.key}: {' '.join(words) or 'in another order'}"


@dataclass(frozen=True)
class SettingsChanged(Cause):
    """The settings that it reads changed; without `changes`, it is not known how."""

    code: ClassVar[str] = "cause-settings"
    changes: tuple[SettingChange, ...] = ()

    @property
    def fields(self) -> Mapping[str, Field]:
        return {"changes": "; ".join(map(str, self.changes)) or "its part of config.toml"}


@dataclass(frozen=True)
class RecordsChanged(Cause):
    """The records of tasks that it depends on changed."""

    code: ClassVar[str] = "cause-records"
    tasks: Sequence[str] = ()


@dataclass(frozen=True)
class FilesChanged(Cause):
    """Files that it reads changed: config.lock, or the files below a folder."""

    code: ClassVar[str] = "cause-files"
    files: Sequence[str] = ()


@dataclass(frozen=True)
class PinMoved(Cause):
    """config.lock pins something else than its last run has used: a day, a commit, a stage."""

    code: ClassVar[str] = "cause-pin-moved"
    task: str = ""
    before: str = ""
    after: str = ""

    @property
    def fields(self) -> Mapping[str, Field]:
        before, after = (
            pin[:_SHORT] if len(pin) >= _DIGEST else pin for pin in (self.before, self.after)
        )
        return {"name": self.task.replace(":", " "), "before": before, "after": after}


class PinUnchanged(Cause):
    """config.lock changed, and pins for it what its last run has used."""

    code: ClassVar[str] = "cause-pin-unchanged"
    same_result: ClassVar[bool] = True


class ResultMissing(Cause):
    """A result is missing, or its record is damaged."""

    code: ClassVar[str] = "cause-result-missing"


class InputsDiffer(Cause):
    """It reads different records and files than in its last run."""

    code: ClassVar[str] = "cause-inputs-differ"


@dataclass(frozen=True)
class InputMissing(Cause):
    """Something that it reads is missing and no task makes it."""

    code: ClassVar[str] = "cause-input-missing"
    files: Sequence[str] = ()


@dataclass(frozen=True)
class LockLacks(Cause):
    """config.lock does not pin everything that config.toml names."""

    code: ClassVar[str] = "cause-lock-lacks"
    gaps: Sequence[Gap] = ()

    @property
    def fields(self) -> Mapping[str, Field]:
        return {"gaps": [str(gap) for gap in self.gaps]}


class LockMissing(Cause):
    """There is no config.lock."""

    code: ClassVar[str] = "cause-lock-missing"


class ManifestExpires(Cause):
    """A release manifest is past half of its validity."""

    code: ClassVar[str] = "cause-manifest-expires"


class RollbackEnds(Cause):
    """A rollback is held, and the task was named, which ends that."""

    code: ClassVar[str] = "cause-rollback-ends"


@dataclass(frozen=True)
class ModifiedByHand(Cause):
    """The chroot was changed in `doit enter`, or such changes were discarded."""

    code: ClassVar[str] = "cause-modified"
    chroot: str = ""


@dataclass(frozen=True)
class MayChange(Cause):
    """It runs only if the result of another task changes."""

    code: ClassVar[str] = "cause-may-change"
    task: str = ""


class AlwaysRuns(Cause):
    """It has no result, so it is never up to date."""

    code: ClassVar[str] = "cause-always"


@dataclass(frozen=True)
class Reason:
    """A task that would run: its own cause, and the first task of the chain that leads to it.

    `chain` starts with the task itself and ends with `root`, each because of the next.
    """

    task: str
    cause: Cause
    root: Cause
    chain: tuple[str, ...]

    def __str__(self) -> str:
        if len(self.chain) == 1:
            return str(self.cause)
        return f"{self.root} ({' -> '.join(reversed(self.chain))}; {self.cause})"

    def plain(self) -> dict[str, Any]:
        """The reason as plain data, for programs."""
        return {
            "task": self.task,
            "cause": self.cause.plain(),
            "root": self.root.plain(),
            "chain": list(self.chain),
            "sentence": str(self),
        }
