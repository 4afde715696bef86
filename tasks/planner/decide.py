"""Decisions: which packages of a plan are built, and which are reused.

`decide` predicts, without building anything, in three classes:

- *reused*: the store has a package for its input key
- *will be built*: the store has none, even if everything else comes out as it was
- *may be built*: something in its buildroot will or may be built; it is reused if that comes out as
  it was

`Progress` goes through a build: it names what can be built, takes the identities of what was, and
reuses what the store has by then. If an output is the same as before, so are the keys of what
needs it, and the build stops there (early cutoff). What the store gets between the two, or an
output that equals one of long ago, turns a package that "will be built" into a reused one.

A *cycle* is decided as one unit: all its packages have keys that cover the own inputs of all, the
order in which they are built, and the identities of what is around them. If the store lacks one,
all are built, one after the other, in at most two rounds (`Cycle`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from tasks.causes import Cause
from tasks.planner.closure import Closures, numbers, select
from tasks.planner.input_changes import (
    BuiltTogether,
    CycleChanged,
    DependencyMayChange,
    EclassChanged,
    NoEarlierBuild,
    PackageMissing,
    differences,
)
from tasks.planner.keys import OwnInputs, identity_line, unit_keys
from tasks.planner.plan import Plan, PlannedPackage

_MAY_CHANGE = 5  # packages named as what may change, of those that are needed indirectly


class HasIdentity(Protocol):
    """A package in the store."""

    @property
    def identity(self) -> str:
        """The digest of what others can see of it."""


B = TypeVar("B", bound=HasIdentity)
Lookup = Callable[[str], B | None]


@dataclass(frozen=True)
class EarlierBuild:
    """The newest build of a package for a chroot: its inputs and their key, and what came out.

    `buildroot` reads the identities of the packages in its buildroot, by CPV. There may be
    thousands, so it is called only where the key tells that they differ.
    """

    own: OwnInputs
    key: str
    identity: str
    buildroot: Callable[[], Mapping[str, str]]


# the newest build of a package in its slot, perhaps of another version
History = Callable[[PlannedPackage], EarlierBuild | None]


@dataclass(frozen=True)
class Reused(Generic[B]):
    """The store has it: `package` is what it has."""

    cpv: str
    key: str
    package: B


@dataclass(frozen=True)
class WillBuild:
    """It must be built. `causes` is never empty."""

    cpv: str
    causes: tuple[Cause, ...]


@dataclass(frozen=True)
class MayBuild:
    """It is built if a package in its buildroot comes out different; `causes` name these."""

    cpv: str
    causes: tuple[Cause, ...]


Decision = Reused[B] | WillBuild | MayBuild


@dataclass(frozen=True)
class Build:
    """A unit that can be built now: its packages in merge order, and their input keys by CPV."""

    packages: tuple[str, ...]
    keys: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name of the unit: the CPV of its first package."""
        return self.packages[0]


def decide(
    plan: Plan,
    closures: Closures,
    own: Mapping[str, OwnInputs],
    lookup: Lookup[B],
    history: History,
    *,
    unsure: Mapping[str, tuple[Cause, ...]] | None = None,
) -> dict[str, Decision[B]]:
    """Predict what becomes of each package of a plan, by CPV.

    The store is asked for the key that a package has if everything in its buildroot that is not
    known yet comes out as in its earlier build. `unsure` has packages, by CPV, that may be built
    for a reason that the plan does not tell.
    """
    return _Forecast(plan, closures, own, lookup, history, unsure=unsure or {}).decisions


class Progress(Generic[B]):
    """The state of a build: what is known by now, and what can be built next.

    `identities`, `keys` and `reused` grow; they are by CPV. Not for several threads.
    """

    def __init__(self, closures: Closures, own: Mapping[str, OwnInputs], lookup: Lookup[B]) -> None:
        self.identities: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.reused: dict[str, B] = {}
        self._closures, self._own, self._lookup = closures, own, lookup
        self._identities = _Identities(closures)
        self._unknown = (1 << len(closures.cpvs)) - 1
        self._queue = deque(closures.units)
        # Each unit waits for one package that it lacks, and looks for the next one then: a count
        # of all that it lacks would have to be changed for every package in every closure.
        self._waiting: dict[int, list[tuple[str, ...]]] = {}

    def ready(self) -> list[Build]:
        """Reuse what the store has, and name the builds that can start since the last call."""
        builds = []
        while self._queue:
            unit = self._queue.popleft()
            if missing := self._closures.outside(unit) & self._unknown:
                self._waiting.setdefault(missing.bit_length() - 1, []).append(unit)
                continue
            build = Build(unit, self._identities.keys(unit, self._own))
            self.keys.update(build.keys)
            packages = {cpv: self._lookup(key) for cpv, key in build.keys.items()}
            stored = {cpv: package for cpv, package in packages.items() if package is not None}
            if len(stored) < len(packages):
                builds.append(build)
                continue
            for cpv, package in stored.items():
                self.reused[cpv] = package
                self._learn(cpv, package.identity)
        return builds

    def built(self, build: Build, identities: Mapping[str, str]) -> None:
        """Take the identity of each package of a build, by CPV."""
        for cpv in build.packages:
            self._learn(cpv, identities[cpv])

    def buildroot(self, cpv: str) -> dict[str, str]:
        """The identities of the packages in a package's buildroot, each after what it runs with.

        Those of its own cycle are left out until they are built.
        """
        members = self._closures.buildroot(cpv)
        return {each: self.identities[each] for each in members if each in self.identities}

    def _learn(self, cpv: str, identity: str) -> None:
        number = self._closures.number[cpv]
        self.identities[cpv] = identity
        self._identities.learn(number, identity)
        self._unknown ^= 1 << number
        self._queue.extend(self._waiting.pop(number, ()))


@dataclass(frozen=True)
class CycleStep:
    """The next build in a cycle: in which round, and the packages of the cycle that it sees.

    `members` has their identities by CPV, in merge order; for what is missing there, the first
    round relies on the seed. All that the cycle needs from outside is in the buildroot, too.
    """

    cpv: str
    round: int
    members: Mapping[str, str]


class Cycle:
    """The builds of a cycle, in turn.

    In the first round each package is built with those before it, and with what the seed has of
    those behind it. In the second each is built with the others that it needs; it is skipped if
    it saw the same ones in the first. There is no third round, even if outputs still change: most
    would settle, and a compiler that embeds a date never would.
    """

    def __init__(self, closures: Closures, unit: Sequence[str]) -> None:
        self.identities: dict[str, str] = {}
        self._unit = tuple(unit)
        self._needs = {cpv: set(closures.buildroot(cpv)) & set(unit) for cpv in unit}
        self._seen: dict[str, dict[str, str]] = {}
        self._turns = deque((number, cpv) for number in (1, 2) for cpv in unit)

    def next(self) -> CycleStep | None:
        """The next build; None when all are done. The same one until `built` is called."""
        while self._turns:
            number, cpv = self._turns[0]
            members = {
                each: self.identities[each]
                for each in self._unit
                if each in self._needs[cpv] and each in self.identities
            }
            if self._seen.get(cpv) != members:
                return CycleStep(cpv, number, members)
            self._turns.popleft()
        return None

    def built(self, step: CycleStep, identity: str) -> None:
        """Take the identity of what a step built."""
        self._turns.popleft()
        self._seen[step.cpv] = dict(step.members)
        self.identities[step.cpv] = identity


class _Identities:
    """The identities of a plan's packages by number, as lines of input keys."""

    def __init__(self, closures: Closures) -> None:
        self._closures = closures
        self.values = [""] * len(closures.cpvs)
        self._lines = {
            version: [identity_line(cpv, version=version) for cpv in closures.cpvs]
            for version in (True, False)
        }

    def learn(self, number: int, identity: str) -> None:
        self.values[number] = identity
        for version, lines in self._lines.items():
            lines[number] = identity_line(self._closures.cpvs[number], identity, version=version)

    def keys(self, unit: Sequence[str], own: Mapping[str, OwnInputs]) -> dict[str, str]:
        """The input keys of a unit, none of which has an identity yet, while all around it have."""
        return unit_keys([(own[cpv], self._buildroot(cpv, own[cpv])) for cpv in unit])

    def key(self, cpv: str, own: OwnInputs) -> str:
        """The key that a package would have with these own inputs."""
        return unit_keys([(own, self._buildroot(cpv, own))])[own.cpv]

    def _buildroot(self, cpv: str, own: OwnInputs) -> list[bytes]:
        lines = self._lines[own.asks_versions]
        return select(lines, self._closures.buildroots[self._closures.number[cpv]])


class _Forecast(Generic[B]):
    """One walk over the units, in the order of their builds."""

    def __init__(
        self,
        plan: Plan,
        closures: Closures,
        own: Mapping[str, OwnInputs],
        lookup: Lookup[B],
        history: History,
        *,
        unsure: Mapping[str, tuple[Cause, ...]],
    ) -> None:
        self.decisions: dict[str, Decision[B]] = {}
        self._unsure = unsure
        self._inheritors = Counter(each.name for p in plan.packages for each in p.eclasses)
        self._plan, self._closures, self._own = plan, closures, own
        self._lookup, self._history = lookup, history
        self._identities = _Identities(closures)
        self._open = 0  # what will or may be built
        self._new = 0  # of these, what has no earlier build that it could come out like
        for unit in closures.units:
            self._unit(unit)

    def _unit(self, unit: tuple[str, ...]) -> None:
        outside = self._closures.outside(unit)
        stored, keys = self._stored(unit, outside)
        if len(stored) < len(unit):
            self._will_build(unit, outside, stored, keys)
            return
        for cpv, package in stored.items():
            number = self._closures.number[cpv]
            self._identities.learn(number, package.identity)
            causes = self._why_unsure(unit, cpv)
            if outside & self._open:
                causes += self._what_may_change(unit, cpv)
            if causes:
                self._open |= 1 << number
                self.decisions[cpv] = MayBuild(cpv, causes)
            else:
                self.decisions[cpv] = Reused(cpv, keys[cpv], package)

    def _why_unsure(self, unit: tuple[str, ...], cpv: str) -> tuple[Cause, ...]:
        if cpv in self._unsure or not any(each in self._unsure for each in unit):
            return self._unsure.get(cpv, ())
        return (BuiltTogether(tuple(each for each in unit if each != cpv)),)

    def _stored(self, unit: tuple[str, ...], outside: int) -> tuple[dict[str, B], dict[str, str]]:
        """The packages that the store has for the expected keys of a unit, and these keys."""
        if outside & self._new:
            return {}, {}
        keys = self._identities.keys(unit, self._own)
        packages = {cpv: self._lookup(key) for cpv, key in keys.items()}
        return {cpv: each for cpv, each in packages.items() if each is not None}, keys

    def _will_build(
        self, unit: tuple[str, ...], outside: int, stored: Mapping[str, B], keys: Mapping[str, str]
    ) -> None:
        earlier = {cpv: self._history(self._plan.by_cpv[cpv]) for cpv in unit}
        causes = {cpv: self._causes(cpv, earlier[cpv], unit) for cpv in unit}
        changed = any(causes.values())
        for cpv in unit:
            build = earlier[cpv]
            others = tuple(each for each in unit if each != cpv)
            if causes[cpv]:
                own_causes = causes[cpv]
            elif changed or cpv in stored:
                own_causes = (BuiltTogether(others),)
            elif outside & self._open:
                own_causes = self._what_may_change(unit, cpv)
            elif build is not None and build.key == keys[cpv]:
                own_causes = (PackageMissing(),)
            else:  # equal inputs, but for the packages that it was or is built together with
                own_causes = (CycleChanged(),)
            self.decisions[cpv] = WillBuild(cpv, own_causes)
        for cpv in unit:
            number = self._closures.number[cpv]
            self._open |= 1 << number
            if build := earlier[cpv]:  # perhaps of another version
                self._identities.learn(number, build.identity)
            else:
                self._new |= 1 << number

    def _causes(
        self, cpv: str, earlier: EarlierBuild | None, unit: tuple[str, ...]
    ) -> tuple[Cause, ...]:
        if earlier is None:
            return (NoEarlierBuild(),)
        return tuple(
            replace(cause, packages=self._inheritors[cause.name])
            if isinstance(cause, EclassChanged)
            else cause
            for cause in self._differences(cpv, earlier, unit)
        )

    def _differences(
        self, cpv: str, earlier: EarlierBuild, unit: tuple[str, ...]
    ) -> tuple[Cause, ...]:
        members = self._closures.buildroots[self._closures.number[cpv]]
        known = len(unit) == 1 and not members & self._new
        if known and self._identities.key(cpv, earlier.own) == earlier.key:
            return differences(earlier.own, self._own[cpv])
        before = earlier.buildroot()
        buildroot = {
            self._closures.cpvs[number]: self._identities.values[number]
            for number in numbers(members)
        }
        for each in buildroot.keys() & before.keys():
            # packages of a cycle change together, and of a new one it is not known if it changes
            if each in unit or self._new >> self._closures.number[each] & 1:
                buildroot[each] = before[each]
        return differences(earlier.own, self._own[cpv], before, buildroot)

    def _what_may_change(self, unit: tuple[str, ...], cpv: str) -> tuple[Cause, ...]:
        """The open packages of a buildroot: those that it needs directly, if there are any."""
        package = self._plan.by_cpv[cpv]
        number = self._closures.number
        outside = self._closures.outside(unit) & self._open
        direct = dict.fromkeys((*package.build_needs, *package.run_needs))
        named = [each for each in direct if outside >> number[each] & 1]
        if not named:
            cpvs = self._closures.cpvs
            named = [cpvs[each] for each in numbers(outside)[:_MAY_CHANGE]]
        return tuple(DependencyMayChange(each) for each in named)
