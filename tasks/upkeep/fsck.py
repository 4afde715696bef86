"""fsck: read everything that records name, report damage, and mark it for repair.

Repairing removes a damaged result and its record, so that the next run of the same command rebuilds
just that; later tasks do not run again, since the record comes out the same. A repository is
renamed and never deleted: it may have days that no mirror has any more.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from tasks import lock as lock_file
from tasks import messages, records
from tasks.errors import BinmillError
from tasks.layout import INSTALL_ROOTS
from tasks.site import Site
from tasks.system.files import all_locked, locked, remove_tree
from tasks.system.notes import Note, note
from tasks.system.terminal import live, say
from tasks.upkeep import checks
from tasks.upkeep.checks import reported_flaw
from tasks.upkeep.reachable import Artifact, Artifacts

_TICK_SECONDS = 0.2
Memory = Callable[[Path], Mapping[str, str]]  # the engine's: by task the SHA-256 of its record


@dataclass(frozen=True)
class Damage:
    """The flaws of one artifact, the remedy, and the function by which --repair begins it.

    `repair` is None where only a person can repair it; the task `lock` must not run meanwhile.
    """

    artifact: str
    flaws: Sequence[Note]
    remedy: Note
    repair: Callable[[], object] | None
    lock: str = ""


class Progress:
    """The progress of a check: on a terminal, one line that moves."""

    def __init__(self) -> None:
        self.artifact, self.read, self.artifacts = "", 0, 0
        self._updated_at = 0.0

    def at(self, artifact: str) -> None:
        self.artifact, self.artifacts = artifact, self.artifacts + 1
        self.add_bytes(0)

    def add_bytes(self, count: int) -> None:
        self.read += count
        if sys.stdout.isatty() and time.monotonic() - self._updated_at > _TICK_SECONDS:
            self._updated_at = time.monotonic()
            live(sys.stdout, f"  {self.artifact}: {self.read / 1e6:,.0f} MB read")


def check(site: Site, artifacts: Artifacts, memory: Memory, *, repair: bool) -> int:
    """Report all damage, and mark it with `repair`; 0 if there is none left, else 1."""
    progress = Progress()
    damaged = left = 0
    for damage in _all(site, artifacts, memory, progress):
        damaged += 1
        flaws = [_sentence(flaw) for flaw in damage.flaws]
        say(messages.sentence("fsck-damaged", {"artifact": damage.artifact, "flaws": flaws}))
        remedy = _sentence(damage.remedy)
        if not repair or damage.repair is None:
            left += 1
            note("fsck-not-marked", remedy=remedy)
        elif cause := _mark(site, damage.repair, damage.lock):
            left += 1
            note("fsck-mark-failed", cause=cause, remedy=remedy)
        else:
            note("fsck-marked", remedy=remedy)
    if not damaged:
        code = "fsck-no-damage"
    elif not repair:
        code = "fsck-shown"
    else:
        code = "fsck-left" if left else "fsck-all-marked"
    counts = {"damaged": damaged, "left": left}
    counts |= {"artifacts": progress.artifacts, "read": progress.read}
    say(messages.sentence(code, counts))
    return 1 if left else 0


def _sentence(flaw: Note) -> str:
    return messages.sentence(flaw.code, flaw.fields)


def _mark(site: Site, repair: Callable[[], object], lock: str) -> str:
    """Begin a repair; returns the cause where that failed."""
    try:
        with locked(site.layout.task_lock(lock), lock) if lock else nullcontext():
            repair()
    except BinmillError as error:
        return error.message
    return ""


def _all(site: Site, artifacts: Artifacts, memory: Memory, progress: Progress) -> Iterator[Damage]:
    digests: Mapping[str, str] = {}
    progress.at("doit.db")
    try:
        digests = memory(site.layout.database)
    except BinmillError as error:
        flaws = [reported_flaw(error.message)]
        repair = partial(_rename_database, site.layout.database)
        yield Damage("doit.db", flaws, Note("remedy-database"), repair)
    try:
        lock_file.read_or_none(site.layout)
    except BinmillError as error:
        remedy = Note("remedy-advice", {"advice": error.hint})
        yield Damage("config.lock", [reported_flaw(error.message)], remedy, None)
    yield from _repositories(site, progress)  # before the exports, which are compared with them
    for artifact in artifacts.values():
        yield from _artifact(site, artifact, digests, progress)
    yield from _stored(site, progress)
    yield from _install_roots(site, progress)
    yield from _binhosts(site, progress)
    yield from _mirror(site, progress)


def _artifact(
    site: Site, artifact: Artifact, digests: Mapping[str, str], progress: Progress
) -> Iterator[Damage]:
    task = artifact.key.task
    place, earlier = site.layout.record(task), records.earlier(site.layout, task)
    raw, old = _bytes(place), _bytes(earlier)
    flaws: list[Note] = []
    paths: list[Path] = []  # only those of an intact record: others may belong to another task
    if raw is not None:
        progress.at(task)
        try:
            flaws = _record_flaws(site, artifact, raw, digests, progress)
            # packages that a build has finished stay: Portage checks them itself
            own = artifact.owned_in(raw)
            paths = [path for path in own if not path.is_relative_to(site.layout.inside)]
        except ValueError:
            flaws = [Note("flaw-record-unreadable")]
        except BinmillError as error:
            flaw = Note("flaw-not-checkable", {"cause": error.message})
            yield Damage(task, [flaw], Note("remedy-clean", {"task": task}), None)
    if old is not None and not _parses(artifact, old):
        flaws, paths = [*flaws, Note("flaw-earlier-record-unreadable")], [*paths, earlier]
    if not flaws or _bytes(place) != raw:  # it was rebuilt meanwhile
        return

    def repair() -> None:
        if _bytes(place) != raw:
            return
        for path in (*paths, place):
            if path.is_relative_to(site.layout.state) and ".." not in path.parts:
                remove_tree(path, site.layout.trash)

    yield Damage(task, flaws, Note("remedy-rebuild", {"task": task}), repair, lock=task)


def _record_flaws(
    site: Site,
    artifact: Artifact,
    raw: bytes,
    digests: Mapping[str, str],
    progress: Progress,
) -> list[Note]:
    """The flaws of an artifact; raises ValueError for a record that cannot be read."""
    key = artifact.key
    record, results = records.parse(key, raw), artifact.results_in(raw)
    digest = sha256(raw).hexdigest()
    if digests.get(key.task, digest) != digest:
        return [Note("flaw-record-replaced")]
    own = artifact.owned_in(raw)
    # results of another task are reported with that task
    own_results = [path for path in results if path in own or not own]
    missing = [
        Note("flaw-result-missing", {"path": _short(site, path)})
        for path in own_results
        if not path.exists()
    ]
    return missing or list(checks.flaws(site, key, record, progress.add_bytes))


def _parses(artifact: Artifact, raw: bytes) -> bool:
    try:
        artifact.results_in(raw)
    except ValueError:
        return False
    return True


def _stored(site: Site, progress: Progress) -> Iterator[Damage]:
    for each in checks.stored(site, progress.at, progress.add_bytes):
        repair = partial(_delete_stored, site, each.files)
        yield Damage(each.name, each.flaws, Note("remedy-store"), repair)


def _delete_stored(site: Site, files: Sequence[Path]) -> None:
    """Delete files of the store, entries first; raises Busy while any task of the site runs.

    A build may have the layer mounted.
    """
    with all_locked(site.layout.locks):
        for path in files:
            remove_tree(path, site.layout.trash)


def _install_roots(site: Site, progress: Progress) -> Iterator[Damage]:
    for kind, name in itertools.product(INSTALL_ROOTS, site.config.chroots):
        folder, task = site.layout.install_root(kind, name), f"{kind}:{name}"
        if not folder.is_dir():
            continue
        progress.at(f"install root of {task}")
        if flaws := list(checks.install_root(folder, progress.add_bytes)):
            repair = partial(remove_tree, folder, site.layout.trash)
            remedy = Note("remedy-install-root", {"task": task})
            yield Damage(progress.artifact, flaws, remedy, repair, lock=task)


def _binhosts(site: Site, progress: Progress) -> Iterator[Damage]:
    from tasks.publish import generation, published, verify

    for name in site.config.chroots:
        binhost, task = site.layout.binhost(name), f"publish:{name}"
        try:
            published.read_paths(binhost)
        except BinmillError as error:
            flaws = [reported_flaw(error.message)]
            repair = partial(verify.restore_paths, binhost)
            yield Damage(f"binhost {name}", flaws, Note("remedy-paths"), repair, lock=task)
        current = generation.current(binhost)
        replace = Note("remedy-replace", {"task": task})
        for number in generation.numbers(binhost):
            progress.at(f"binhost {name} generation {number}")
            damage = list(verify.flaws(binhost, number, progress.add_bytes))
            if damage:
                yield Damage(
                    progress.artifact,
                    [reported_flaw(flaw.text) for flaw in damage],
                    replace if number == current else Note("remedy-serve-rest"),
                    partial(_withdraw, site, name, number, [flaw.path for flaw in damage]),
                    lock=task,
                )
            elif number == current and verify.damaged(binhost, number):
                yield Damage(progress.artifact, [Note("flaw-files-withdrawn")], replace, None)


def _withdraw(site: Site, name: str, number: int, files: Sequence[Path]) -> None:
    from tasks.publish import generation, verify

    binhost = site.layout.binhost(name)
    verify.withdraw(binhost, number, files, site.layout.trash)
    if number == generation.current(binhost):
        with locked(site.layout.task_lock(f"candidate:{name}"), f"candidate:{name}"):
            for task in ("publish", "candidate"):
                remove_tree(site.layout.record(f"{task}:{name}"), site.layout.trash)


def _repositories(site: Site, progress: Progress) -> Iterator[Damage]:
    from tasks.system import git

    tree = site.layout.tree
    if tree.exists():
        progress.at("tree.git")
        if flaw := git.damage(tree):
            repair: Callable[[], object] = partial(_salvage, site)
            yield Damage(
                "tree.git", [reported_flaw(flaw)], Note("remedy-tree"), repair, lock="snapshot"
            )
    for name in site.config.overlays:
        place = site.layout.overlay(name)
        if place.exists():
            progress.at(f"overlays/{name}.git")
            if flaw := git.damage(place):
                repair, lock = partial(_rename, place), f"overlay:{name}"
                remedy = Note("remedy-overlay")
                yield Damage(progress.artifact, [reported_flaw(flaw)], remedy, repair, lock)


def _salvage(site: Site) -> None:
    """Start a new tree repository with every day that can be read in the damaged one."""
    from tasks.snapshot import frozen_days, remote

    with locked(site.layout.task_lock("tree"), "tree"):
        damaged = _rename(site.layout.tree)
        try:
            days = frozen_days.tags(damaged)
        except BinmillError:
            days = []
        for day in days:
            try:
                remote.fetch_day(site.layout.tree, str(damaged), day)
            except BinmillError:
                note("day-lost", day=day)
        try:
            remote.fast_forward(site.layout.tree, str(damaged))
        except BinmillError:
            note("branch-lost")


def _mirror(site: Site, progress: Progress) -> Iterator[Damage]:
    from tasks.serve import distfiles

    for group in ("public", *site.config.access.groups):
        artifact = f"mirror {group}"
        progress.at(artifact)
        folder = site.layout.mirror(group)
        for name, flaw in checks.mirror(site, group, progress.add_bytes):
            code = "remedy-distfile" if group == "public" else "remedy-restricted-distfile"
            remedy = Note(code, {"name": name, "group": group})
            repair = partial(distfiles.delete, folder, name)
            yield Damage(artifact, [flaw], remedy, repair, lock="distfile")


def _rename(path: Path) -> Path:
    """Rename something damaged, beside it; `doit gc` deletes it."""
    place, count = path.with_name(f"{path.name}.damaged"), 1
    while place.exists():
        count += 1
        place = path.with_name(f"{path.name}.damaged.{count}")
    path.rename(place)
    return place


def _rename_database(database: Path) -> None:
    """Rename doit's database, and the journal that SQLite would play back into a new one."""
    for path in (database.with_name(f"{database.name}-journal"), database):
        if path.exists():
            _rename(path)


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
    state = site.layout.state
    return str(path.relative_to(state) if path.is_relative_to(state) else path)
