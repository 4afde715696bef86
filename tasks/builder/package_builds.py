"""The builds of a plan: what the pool decides about each unit, and how a package is built and kept.

A unit is one package, or the packages of a cycle. What is built goes into the store at once, so a
run that fails or is killed loses only the packages that it was building.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks import messages
from tasks.builder import distfiles, failure
from tasks.builder.failure import Failure, Kind, Limit
from tasks.builder.pool import Build as MustBuild
from tasks.builder.pool import Cancelled, Outcome, Reuse, Success
from tasks.buildroot import buildroot, failed_buildroot
from tasks.buildroot.buildroot import BinaryPackage, PackageBuild
from tasks.causes import Cause
from tasks.errors import BinmillError, Busy, NotTrusted
from tasks.layout import Layout
from tasks.planner import keys
from tasks.planner.closure import Closures
from tasks.planner.decide import (
    Build,
    Cycle,
    Decision,
    EarlierBuild,
    MayBuild,
    Progress,
    Reused,
    decide,
)
from tasks.planner.input_changes import DependencyMayChange, differences, for_everyone
from tasks.planner.keys import OwnInputs
from tasks.planner.plan import Plan, PlannedPackage
from tasks.portage import index
from tasks.portage.index import INDEX
from tasks.store.built import Built, Product
from tasks.store.store import Store
from tasks.system import sandbox
from tasks.system.command import tail
from tasks.system.files import private_folder, read_plain, remove_tree
from tasks.system.sandbox import Limits, Sandbox

_TAIL = 64 << 10  # bytes of a log in which the present phase is looked for
_INDEX_LIMIT = 4 << 20  # bytes of an index with one package
_LIMITS = {"timeout": Limit.TIME, "silent": Limit.SILENCE, "out-of-memory": Limit.MEMORY}
_KINDS = {"disk-full": Kind.DISK, "network-denied": Kind.NETWORK}
# Their state is gone, or would keep the disk full for all other builds.
_NOT_KEPT = ("dependency-not-installed", "disk-full")
_REFUSED = ("file-not-plain", "file-too-large", "nothing-installed")
# Reasons that the log of the build does not tell.
_SENTENCES = {
    "log-too-large": "stopped-log-too-large",
    "too-many-processes": "stopped-too-many-processes",
    "dependency-not-installed": "dependency-not-installed",
    "not-packed": "nothing-packed",
}


@dataclass(frozen=True)
class BuildSettings:
    """The limits of one package's build, and its MAKEOPTS.

    `tmpfs` is the size in bytes of one for its work directory; 0: it is on the disk.
    """

    limits: Limits
    makeopts: str
    tmpfs: int = 0


@dataclass(frozen=True)
class SetBuild:
    """Everything that the build of a chroot's set needs.

    `sandbox` gives the chroot's own sandbox with a workspace, `fetch` fetches the distfiles of a
    package, with its log, and returns the exit code. `distfiles` are the folders to which it
    fetches. `highest` has the highest published build number by CPV. `logs` is the
    folder of the packages' logs, `settings` are by CPV. `keep_failed` keeps the buildroots of
    failed packages.
    """

    chroot: str
    plan: Plan
    closures: Closures
    own: Mapping[str, OwnInputs]
    layout: Layout
    highest: Mapping[str, int]
    sandbox: Callable[[Path], Sandbox]
    fetch: Callable[[PlannedPackage, Path], int]
    distfiles: tuple[Path, ...]
    logs: Path
    settings: Callable[[str], BuildSettings]
    keep_failed: bool = False


@dataclass(frozen=True)
class _Result:
    """A package that was built, and the most memory that it took, in bytes (0: unknown).

    `unchanged`: its output is equal to that of an older build.
    """

    built: Built
    memory: int
    unchanged: bool


def earlier_builds(store: Store, chroot: str) -> Callable[[PlannedPackage], EarlierBuild | None]:
    """The newest builds of a chroot's packages, as the store remembers them."""

    def earlier(package: PlannedPackage) -> EarlierBuild | None:
        last = store.last_inputs(chroot, package.cpv, package.slot)
        return _parse_build(last[1]) if last else None

    return earlier


def build_of(store: Store, sha512: str) -> EarlierBuild | None:
    """The build that a package of the store came from; None if it is not known."""
    return _parse_build(store.inputs_of(sha512) or {})


def causes_of(store: Store, sha512: str) -> tuple[str, ...]:
    """The causes for which a package of the store was built, in words that may be published."""
    causes = (store.inputs_of(sha512) or {}).get("causes")
    return tuple(map(str, causes)) if isinstance(causes, list) else ()


def _parse_build(data: Mapping[str, Any]) -> EarlierBuild | None:
    match data:
        case {"own": str(own), "key": str(key), "identity": str(identity), **more}:
            buildroot_then = more.get("buildroot")
            members: dict[str, str] = {}
            if isinstance(buildroot_then, dict):
                members = {str(cpv): str(each) for cpv, each in buildroot_then.items()}
            try:
                inputs = keys.parse(own)
            except ValueError:  # written by another version of binmill; it only explains
                return None
            return EarlierBuild(inputs, key, identity, lambda: members)
    return None


class PackageBuilds:
    """The work of a pool: the units of a plan."""

    def __init__(self, order: SetBuild) -> None:
        self._order, self._store = order, Store(order.layout)
        self._progress: Progress[Built] = Progress(order.closures, order.own, self._store.lookup)
        earlier = earlier_builds(self._store, order.chroot)
        self.forecast: dict[str, Decision[Built]] = decide(
            order.plan, order.closures, order.own, self._store.lookup, earlier
        )
        self._units: dict[str, Build] = {}
        self._unit_of = {cpv: unit for unit in order.closures.units for cpv in unit}
        self._new: dict[str, Built] = {}
        self._finished: queue.SimpleQueue[tuple[Build, dict[str, Built]]] = queue.SimpleQueue()
        self._logs: dict[str, Path] = {}  # of the builds that run, by unit
        self._phases: dict[Path, str] = {}

    @property
    def packages(self) -> list[tuple[PlannedPackage, Built]]:
        """The packages of a build that is complete, in the plan's order."""
        self._take_finished()
        return [(each, self._built(each.cpv)) for each in self._order.plan.packages]

    @property
    def used_keys(self) -> list[str]:
        """The input keys of all packages that are known by now."""
        return list(self._progress.keys.values())

    def decide(self, name: str) -> MustBuild | Reuse:
        """Build a unit, or reuse what the store has; its needs are finished."""
        self._take_finished()
        for unit in self._progress.ready():
            self._units[unit.name] = unit
        if name in self._units:
            return MustBuild()
        causes = [
            cause.package
            for cpv in self._unit_of[name]
            if isinstance(forecast := self.forecast[cpv], MayBuild)
            for cause in forecast.causes
            if isinstance(cause, DependencyMayChange)
        ]
        return Reuse(tuple(dict.fromkeys(causes)))

    def build(self, name: str) -> Outcome:
        """Build the packages of a unit, in a thread of the pool."""
        unit = self._units[name]
        finished = self._build_unit(unit)
        if isinstance(finished, Failure):
            return finished
        for cpv, each in finished.items():
            self._remember(cpv, unit.keys[cpv], each.built)
        self._finished.put((unit, {cpv: each.built for cpv, each in finished.items()}))
        return Success(
            memory=max(each.memory for each in finished.values()),
            unchanged=all(each.unchanged for each in finished.values()),
        )

    def phase(self, name: str) -> str:
        """The phase that the build of a unit is in, by its log."""
        log = self._logs.get(name)
        if log is None or not log.exists():
            return "fetch" if log is None else ""
        with contextlib.suppress(OSError):  # its build ends at this moment
            self._phases[log] = failure.phase_of(tail(log, _TAIL)) or self._phases.get(log, "")
        return self._phases.get(log, "")

    def _take_finished(self) -> None:
        while not self._finished.empty():
            unit, packages = self._finished.get()
            self._new.update(packages)
            self._progress.built(unit, {cpv: each.identity for cpv, each in packages.items()})

    def _built(self, cpv: str) -> Built:
        return self._new.get(cpv) or self._progress.reused[cpv]

    def _build_unit(self, unit: Build) -> dict[str, _Result] | Failure:
        if len(unit.packages) > 1:
            return self._build_cycle(unit)
        result = self._build_package(unit.name, unit.keys[unit.name], {})
        return result if isinstance(result, Failure) else {unit.name: result}

    def _build_cycle(self, unit: Build) -> dict[str, _Result] | Failure:
        """Build a cycle in its rounds; what a killed run has built of it is reused."""
        cycle = Cycle(self._order.closures, unit.packages)
        results: dict[str, _Result] = {}
        while step := cycle.next():
            key = keys.step_key(unit.keys[step.cpv], step.members)
            seen = {cpv: results[cpv].built for cpv in step.members}
            result = self._stored(key) or self._build_package(step.cpv, key, seen)
            if isinstance(result, Failure):
                return replace(result, package=step.cpv)
            if before := results.get(step.cpv):  # what is equal to the first round may be new
                result = replace(result, unchanged=result.unchanged and before.unchanged)
            results[step.cpv] = result
            cycle.built(step, result.built.identity)
        for cpv, each in results.items():
            self._store.add_key(unit.keys[cpv], each.built)
        return results

    def _stored(self, key: str) -> _Result | None:
        built = self._store.lookup(key)
        return _Result(built, 0, built.key != key) if built else None

    def _build_package(self, cpv: str, key: str, cycle: Mapping[str, Built]) -> _Result | Failure:
        """Fetch for a package, build it, and add it to the store."""
        order = self._order
        package = order.plan.by_cpv[cpv]
        log = order.logs / f"{cpv.replace('/', ':')}.log"
        if absent := self._fetch(package, log):
            return absent
        buildroot_now = [
            cycle.get(each) or self._built(each)
            for each in order.closures.buildroot(cpv)
            if each in cycle or each not in self._unit_of[cpv]
        ]
        try:
            number = self._store.next_build_id(cpv, order.highest.get(cpv, 0))
        except NotTrusted as error:
            return Failure(Kind.INSTALL, "merge", (error.message,), log=log)
        name = f"build-{order.chroot}-{cpv.replace('/', '.')}"
        with sandbox.workspace(order.layout.work, name, order.layout.trash) as space:
            build = self._package_build(package, number, buildroot_now, space)
            private_folder(build.folder)
            if names := distfiles.provide(order.distfiles, package, build.distdir):
                return _absent(names, log, 0)
            self._logs[self._unit_of[cpv][0]] = build.log
            try:
                outcome = buildroot.build(build)
                if outcome.reason == "built":
                    built = self._store.add(key, self._product(package, number, outcome))
                    return _Result(built, outcome.memory or 0, built.key != key)
            except BinmillError as error:  # other packages can still be built
                if not _is_of_the_package(error):
                    raise
                return Failure(Kind.INSTALL, "merge", (error.message,), log=log)
            finally:
                _keep_log(build.log, log)
            if outcome.reason == "cancelled":
                raise Cancelled
            return self._keep_failed(build, outcome, _failure(build, outcome, log))

    def _keep_failed(
        self, build: PackageBuild, outcome: buildroot.Outcome, explained: Failure
    ) -> Failure:
        """Keep the buildroot of a failed build, if that was asked for, and say how to enter it."""
        if not self._order.keep_failed or outcome.reason in _NOT_KEPT:
            return explained
        chroot = self._order.chroot
        try:
            failed_buildroot.keep(self._order.layout, chroot, build, explained.phase)
        except Busy as error:
            return replace(explained, buildroot=error.message)
        fields = {"chroot": chroot, "package": build.cpv}
        return replace(explained, buildroot=messages.sentence("failed-kept", fields))

    def _fetch(self, package: PlannedPackage, log: Path) -> Failure | None:
        order = self._order
        if not distfiles.missing(order.distfiles, package):
            return None
        status = order.fetch(package, log)
        absent = distfiles.missing(order.distfiles, package)
        return _absent(absent, log, status) if absent else None

    def _package_build(
        self, package: PlannedPackage, number: int, members: Sequence[Built], space: Path
    ) -> PackageBuild:
        order = self._order
        settings = order.settings(package.cpv)
        return PackageBuild(
            chroot=order.sandbox(space),
            cpv=package.cpv,
            repo=package.repo,
            build_id=number,
            layers=tuple(self._store.verify_layer(each.layer) for each in members if each.layer),
            installs=tuple(
                BinaryPackage(each.cpv, each.build_id, self._store.verify_package(each))
                for each in members
                if not each.layer
            ),
            folder=space / "build",
            flat=order.layout.flat_layers,
            merge_layer=space / "layer",
            trash=order.layout.trash,
            makeopts=settings.makeopts,
            limits=settings.limits,
            # what is there is gone with the build
            tmpfs=0 if order.keep_failed else settings.tmpfs,
        )

    def _product(self, package: PlannedPackage, number: int, outcome: buildroot.Outcome) -> Product:
        assert outcome.package is not None  # noqa: S101 - it was built
        layer = outcome.layer
        if outcome.side_effects and layer is not None:  # it must really be installed
            remove_tree(layer, self._order.layout.trash)
            layer = None
        pkgdir = outcome.package.parents[2]
        return Product(
            planned=package,
            build_id=number,
            package=outcome.package,
            layer=layer,
            stanza=index.only_stanza(read_plain(pkgdir / INDEX, _INDEX_LIMIT)),
            seconds=outcome.seconds,
            inputs=self._order.own[package.cpv].digest,
        )

    def _remember(self, cpv: str, key: str, built: Built) -> None:
        """Keep the inputs of a build, to explain the next one, and its causes."""
        order = self._order
        package = order.plan.by_cpv[cpv]
        members = {
            each: self._built(each).identity
            for each in order.closures.buildroot(cpv)
            if each not in self._unit_of[cpv]
        }
        data: dict[str, Any] = {
            "own": keys.render(order.own[cpv]),
            "key": key,
            "identity": built.identity,
            "buildroot": members,
        }
        earlier = earlier_builds(self._store, order.chroot)(package)
        causes: tuple[Cause, ...] = ()
        if earlier:
            causes = differences(earlier.own, order.own[cpv], earlier.buildroot(), members)
        if not causes and not isinstance(forecast := self.forecast[cpv], Reused):
            causes = forecast.causes
        words = [str(for_everyone(each)) for each in causes]
        self._store.keep_inputs(built, {**data, "causes": words})
        self._store.remember_inputs(order.chroot, cpv, package.slot, data)


def _absent(names: Sequence[str], log: Path, status: int) -> Failure:
    """The failure of a package that lacks distfiles after its fetch ended with that exit code."""
    explained = failure.explain(log, status)
    kind = explained.kind if explained.kind in (Kind.CHECKSUM, Kind.DISK) else Kind.FETCH
    lines = explained.lines if status else ()
    sentence = messages.sentence("distfiles-absent", {"files": names})
    return replace(explained, kind=kind, phase="fetch", lines=(sentence, *lines))


def _is_of_the_package(error: BinmillError) -> bool:
    """True if what a build left is refused: a package has changed what only Portage may change."""
    return isinstance(error, NotTrusted) or error.code in _REFUSED


def _failure(build: PackageBuild, outcome: buildroot.Outcome, log: Path) -> Failure:
    """The failure of a build, explained by its log and by the limit that ended it."""
    explained = failure.explain(log, outcome.status or 0, _LIMITS.get(outcome.reason))
    if outcome.reason in _KINDS:
        explained = replace(explained, kind=_KINDS[outcome.reason])
    if outcome.reason in _SENTENCES:
        sentence = messages.sentence(_SENTENCES[outcome.reason], {})
        explained = replace(explained, lines=(sentence, *explained.lines))
    if explained.kind is Kind.DISK and build.tmpfs:
        sentence = messages.sentence("work-was-in-tmpfs", {"size": build.tmpfs})
        explained = replace(explained, lines=(sentence, *explained.lines))
    return explained


def _keep_log(source: Path, target: Path) -> None:
    """Move the log of a build behind that of its fetch, out of the workspace."""
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        with target.open("ab") as stream, source.open("rb") as text:
            while chunk := text.read(1 << 20):
                stream.write(chunk)
        return
    source.rename(target)
