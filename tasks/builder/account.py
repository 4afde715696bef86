"""The account of a build: what happened to each package, as data, and as an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tasks import messages
from tasks.builder.failure import Failure, Kind
from tasks.errors import CommandFailed
from tasks.messages import Field

_SENTENCES = {
    Kind.FETCH: "failed-fetch",
    Kind.CHECKSUM: "failed-checksum",
    Kind.PATCH: "failed-patch",
    Kind.CONFIGURE: "failed-configure",
    Kind.COMPILE: "failed-compile",
    Kind.LINK: "failed-link",
    Kind.TEST: "failed-test",
    Kind.INSTALL: "failed-install",
    Kind.COLLISION: "failed-collision",
    Kind.HANG: "failed-hang",
    Kind.TIME: "failed-time",
    Kind.MEMORY: "failed-out-of-memory",
    Kind.DISK: "failed-disk-full",
    Kind.NETWORK: "failed-network-denied",
    Kind.UNKNOWN: "failed-unknown",
}


@dataclass(frozen=True)
class BuiltPackage:
    """A package that was built in so many `seconds`; `memory` is its peak in bytes (0: unknown).

    `unchanged`: its output is equal to that of the build before.
    """

    name: str
    seconds: float
    memory: int = 0
    unchanged: bool = False


@dataclass(frozen=True)
class CutOffPackage:
    """A package that was not rebuilt, because the new output of what it needs is the old one."""

    name: str
    because: tuple[str, ...]


@dataclass(frozen=True)
class FailedPackage:
    """A package that failed after so many `seconds`."""

    name: str
    failure: Failure
    seconds: float


@dataclass(frozen=True)
class SkippedPackage:
    """A package that was not built, because one that it needs, directly or not, failed."""

    name: str
    because: str


@dataclass(frozen=True)
class Account:
    """The fate of every package of a build; those not started when it ended are `not_started`.

    `seconds` are those of the whole build.
    """

    built: tuple[BuiltPackage, ...] = ()
    reused: tuple[str, ...] = ()
    cut_off: tuple[CutOffPackage, ...] = ()
    failed: tuple[FailedPackage, ...] = ()
    skipped: tuple[SkippedPackage, ...] = ()
    not_started: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """True when every package was built or reused."""
        return not (self.failed or self.skipped or self.not_started)


def totals(account: Account) -> dict[str, Field]:
    """The numbers of an account, as the fields of its sentence."""
    return {
        "built": len(account.built),
        "unchanged": sum(package.unchanged for package in account.built),
        "reused": len(account.reused),
        "cut_off": len(account.cut_off),
        "failed": len(account.failed),
        "skipped": len(account.skipped),
        "not_started": len(account.not_started),
        "seconds": account.seconds,
    }


def failed(account: Account, chroot: str) -> CommandFailed:
    """The error of a build in which packages failed: it names every one, by class."""
    return CommandFailed(
        "packages-failed",
        chroot=chroot,
        failed=len(account.failed),
        skipped=len(account.skipped),
        rows=list(_failures(account)),
    )


def _failures(account: Account) -> Iterator[str]:
    skipped: dict[str, list[str]] = {}
    for package in account.skipped:
        skipped.setdefault(package.because, []).append(package.name)
    classes = list(Kind)
    for each in sorted(account.failed, key=lambda each: classes.index(each.failure.kind)):
        yield from _failure(each)
        if each.name in skipped:
            fields = {"because": each.name, "packages": skipped[each.name]}
            yield f"  {messages.sentence('packages-skipped', fields)}"


def _failure(package: FailedPackage) -> Iterator[str]:
    """One line that says what failed, and below it what helps to fix it."""
    failure = package.failure
    cause, *more = failure.lines or ("",)
    fields = {"package": package.name, "phase": failure.phase or "unknown", "cause": cause}
    yield messages.sentence(_SENTENCES[failure.kind], fields)
    yield from (f"  {line}" for line in more)
    if failure.missing is not None:
        yield f"  {messages.sentence('failed-missing', {'missing': str(failure.missing)})}"
    if failure.log is not None:
        yield f"  {messages.sentence('failed-log', {'log': failure.log})}"
    if failure.buildroot:
        yield f"  {failure.buildroot}"
