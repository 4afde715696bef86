"""fsck: read everything that the records name, tell the damage, and mark just that stale.

Repairing takes a damaged result and its record away, so that the next run of the same command
makes exactly that again; what depends on it stays, since the record comes out the same. A
repository is put aside and never deleted: days may be in it that no mirror has any more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from tasks import lock as lock_file
from tasks import records
from tasks.errors import BinmillError
from tasks.site import Site
from tasks.system.files import locked, remove_tree
from tasks.system.terminal import live, say
from tasks.upkeep import checks
from tasks.upkeep.reachable import Artifact, Artifacts

_LINES = 3  # flaws of one artifact that are told
_TICK_SECONDS = 0.2
Memory = Callable[[Path], Mapping[str, str]]  # the engine's: by task the SHA-256 of its record


@dataclass(frozen=True)
class Damage:
    """What is wrong with one artifact, what makes it right again, and how --repair begins that.

    `mend` is None where only a person can; `lock` is the task that must not run meanwhile.
    """

    artifact: str
    flaws: Sequence[str]
    remedy: str
    mend: Callable[[], object] | None
    lock: str = ""


class Progress:
    """The progress of a check: on a terminal, one line that moves."""

    def __init__(self) -> None:
        self.artifact, self.read, self.artifacts = "", 0, 0
        self._shown_at = 0.0

    def at(self, artifact: str) -> None:
        self.artifact, self.artifacts = artifact, self.artifacts + 1
        self.seen(0)

    def seen(self, count: int) -> None:
        self.read += count
        if sys.stdout.isatty() and time.monotonic() - self._shown_at > _TICK_SECONDS:
            self._shown_at = time.monotonic()
            live(sys.stdout, f"  {self.artifact}: {self.read / 1e6:,.0f} MB read")


def check(site: Site, artifacts: Artifacts, memory: Memory, *, repair: bool) -> int:
    """Report all damage, and mark it where `repair`; 0 if there is none left, else 1."""
    progress = Progress()
    damaged = left = 0
    for damage in _all(site, artifacts, memory, progress):
        damaged += 1
        more = len(damage.flaws) - _LINES
        say(
            f"{damage.artifact}: damaged: {'; '.join(damage.flaws[:_LINES])}"
            + (f"; and {more} more" if more > 0 else "")
        )
        problem = _mark(site, damage) if repair else "not marked; "
        left += bool(problem)
        say(f"  {problem if repair and problem else 'marked; ' if repair else ''}{damage.remedy}")
    read = f"{progress.artifacts} artifacts, {progress.read / 1e6:,.0f} MB read"
    if not damaged:
        say(f"no damage: {read}")
    elif not repair:
        say(f"{damaged} damaged, {read}; `doit fsck --repair` marks what can be made again")
    elif left:
        say(f"{left} of {damaged} are left: {read}")
    else:
        say(f"{damaged} damaged, all marked: {read}; now run the same command as always")
    return 1 if left else 0


def _mark(site: Site, damage: Damage) -> str:
    """Begin a repair; returns why it could not be done, "" where it was."""
    if damage.mend is None:
        return "not marked; "
    try:
        if damage.lock:
            with locked(site.layout.task_lock(damage.lock), damage.lock):
                damage.mend()
        else:
            damage.mend()
    except BinmillError as error:
        return f"not marked: {error.message}; "
    return ""


def _all(site: Site, artifacts: Artifacts, memory: Memory, progress: Progress) -> Iterator[Damage]:
    remembered: Mapping[str, str] = {}
    progress.at("doit.db")
    try:
        remembered = memory(site.layout.database)
    except BinmillError as error:
        yield Damage(
            "doit.db",
            [error.message],
            "the next run makes everything again, with what lies below state/",
            partial(_forget, site.layout.database),
        )
    try:
        lock_file.read_or_none(site.layout)
    except BinmillError as error:
        yield Damage("config.lock", [error.message], error.hint, None)
    yield from _repositories(site, progress)  # before the exports, which are held against them
    for artifact in artifacts.values():
        yield from _artifact(site, artifact, remembered, progress)
    yield from _published(site, progress)
    yield from _mirror(site, progress)


def _artifact(
    site: Site, artifact: Artifact, remembered: Mapping[str, str], progress: Progress
) -> Iterator[Damage]:
    task = artifact.key.task
    place, earlier = site.layout.record(task), records.earlier(site.layout, task)
    raw, old = _bytes(place), _bytes(earlier)
    flaws: list[str] = []
    named: list[Path] = []  # only what a sound record names: else it may belong to another one
    if raw is not None:
        progress.at(task)
        try:
            flaws = _record_flaws(site, artifact, raw, remembered, progress)
            # the packages that a build has finished stay: Portage checks them itself
            own = artifact.owned_in(raw)
            named = [path for path in own if not path.is_relative_to(site.layout.inside)]
        except ValueError:
            flaws = ["its record cannot be read"]
        except BinmillError as error:
            reason = f"it cannot be checked: {error.message}"
            yield Damage(task, [reason], f"doit clean {task}; doit {task}", None)
    if old is not None and not _parses(artifact, old):
        flaws, named = [*flaws, "its earlier record cannot be read"], [*named, earlier]
    if not flaws or _bytes(place) != raw:  # it was made again meanwhile
        return

    def mend() -> None:
        if _bytes(place) != raw:
            return
        for path in (*named, place):
            if path.is_relative_to(site.layout.state) and ".." not in path.parts:
                remove_tree(path, site.layout.trash)

    yield Damage(task, flaws, f"`doit {task}` makes it again", mend, lock=task)


def _record_flaws(
    site: Site,
    artifact: Artifact,
    raw: bytes,
    remembered: Mapping[str, str],
    progress: Progress,
) -> list[str]:
    """The flaws of an artifact; raises ValueError for a record that cannot be read."""
    key = artifact.key
    record, results = records.parse(key, raw), artifact.results_in(raw)
    digest = sha256(raw).hexdigest()
    if remembered.get(key.task, digest) != digest:
        return ["its record is not the one that was written"]
    own = artifact.owned_in(raw)
    # a result of a task below is reported with that task
    mine = [path for path in results if path in own or not own]
    missing = [f"{_short(site, path)} is missing" for path in mine if not path.exists()]
    return missing or list(checks.flaws(site, key, record, progress.seen))


def _parses(artifact: Artifact, raw: bytes) -> bool:
    try:
        artifact.results_in(raw)
    except ValueError:
        return False
    return True


def _published(site: Site, progress: Progress) -> Iterator[Damage]:
    from tasks.publish import generation, published, verify

    for name in site.config.chroots:
        binhost, task = site.layout.binhost(name), f"publish:{name}"
        try:
            published.read_paths(binhost)
        except BinmillError as error:
            yield Damage(
                f"binhost {name}",
                [error.message],
                "written again from the kept generations",
                partial(verify.restore_paths, binhost),
                lock=task,
            )
        now = generation.current(binhost)
        for number in generation.numbers(binhost):
            progress.at(f"binhost {name} generation {number}")
            found = list(verify.flaws(binhost, number, progress.seen))
            if number == now and not found and verify.damaged(binhost, number):
                yield Damage(
                    progress.artifact,
                    ["something was taken out of it"],
                    f"`doit {task}` replaces it",
                    None,
                )
            if found:
                yield Damage(
                    progress.artifact,
                    [line for _, line in found],
                    f"`doit {task}` makes a new generation"
                    if number == now
                    else "the rest of it goes on being served until it is pruned",
                    partial(_withdraw, site, name, number, [path for path, _ in found]),
                    lock=task,
                )


def _withdraw(site: Site, name: str, number: int, spoilt: Sequence[Path]) -> None:
    from tasks.publish import generation, verify

    binhost = site.layout.binhost(name)
    verify.withdraw(binhost, number, spoilt, site.layout.trash)
    if number == generation.current(binhost):
        with locked(site.layout.task_lock(f"candidate:{name}"), f"candidate:{name}"):
            for task in ("publish", "candidate"):
                remove_tree(site.layout.record(f"{task}:{name}"), site.layout.trash)


def _repositories(site: Site, progress: Progress) -> Iterator[Damage]:
    from tasks.system import git

    tree = site.layout.tree
    if tree.exists():
        progress.at("tree.git")
        if said := git.damage(tree):
            yield Damage(
                "tree.git",
                [said],
                "put aside with its whole days taken over; `doit "
                "snapshot` gets the others from the remote and the mirrors",
                partial(_salvage, site),
                lock="snapshot",
            )
    for name in site.config.overlays:
        place = site.layout.overlay(name)
        if place.exists():
            progress.at(f"overlays/{name}.git")
            if said := git.damage(place):
                yield Damage(
                    progress.artifact,
                    [said],
                    "put aside; it is fetched again when its commit is wanted",
                    partial(_aside, place),
                    lock=f"overlay:{name}",
                )


def _salvage(site: Site) -> None:
    """Begin the tree repository anew with every day that can be read in the damaged one."""
    from tasks.snapshot import frozen_days, remote

    with locked(site.layout.task_lock("tree"), "tree"):
        aside = _aside(site.layout.tree)
        try:
            days = frozen_days.tags(aside)
        except BinmillError:
            days = []
        for day in days:
            try:
                remote.fetch_day(site.layout.tree, str(aside), day)
            except BinmillError:
                say(f"  {day} cannot be read any more")
        try:
            remote.fast_forward(site.layout.tree, str(aside))
        except BinmillError:
            say("  the branch cannot be read any more; the next day begins it anew")


def _mirror(site: Site, progress: Progress) -> Iterator[Damage]:
    from tasks.serve import distfiles

    for group in ("public", *site.config.access.groups):
        progress.at(f"mirror {group}")
        folder = site.layout.mirror(group)
        for name, line in checks.mirror(site, group, progress.seen):
            yield Damage(
                f"mirror {group}",
                [line],
                "`doit distfile sync` lets it in again"
                if group == "public"
                else f"`doit distfile add {name} --group {group}` with a whole one",
                partial(distfiles.delete, folder, name),
                lock="distfile",
            )


def _aside(path: Path) -> Path:
    """Give something another name beside it; it is kept until `doit gc`."""
    place, count = path.with_name(f"{path.name}.damaged"), 1
    while place.exists():
        count += 1
        place = path.with_name(f"{path.name}.damaged.{count}")
    path.rename(place)
    return place


def _forget(database: Path) -> None:
    """Put doit's memory aside, and what SQLite would play back into a new one."""
    for path in (database.with_name(f"{database.name}-journal"), database):
        if path.exists():
            _aside(path)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise
    except OSError:  # a bad block
        return b""


def _short(site: Site, path: Path) -> str:
    inside = path.is_relative_to(site.layout.state)
    return str(path.relative_to(site.layout.state) if inside else path)
