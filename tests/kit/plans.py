"""Plans that are made up, what can change about them, and a builder that only computes.

Ids of ebuilds, eclasses and files/ are BEHAVIOUR.COMMENT here: `simulated_identity` looks at the
behaviour alone, as a build would.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from tasks.planner.closure import Closures, closure
from tasks.planner.decide import Build, Cycle, Decision, EarlierBuild, Progress, decide
from tasks.planner.keys import Environment, Objects, OwnInputs, own_inputs
from tasks.planner.plan import (
    ConfigFile,
    Distfile,
    Eclass,
    Plan,
    PlannedPackage,
    SeedPackage,
)

ENVIRONMENT = Environment(recipe="1", arch="amd64", seed="5" * 128)
TOOLCHAIN = SeedPackage("sys-devel/gcc-14.2.0", "gcc", toolchain=True)
SEED = (
    TOOLCHAIN,
    SeedPackage("app-arch/xz-utils-5.4.1", "xz", toolchain=False),
    SeedPackage("app-shells/bash-5.2", "bash", toolchain=False),
)


def planned(
    cpv: str,
    *,
    build: Iterable[str] = (),
    run: Iterable[str] = (),
    post: Iterable[str] = (),
    seed: Iterable[str] = (),
    eclasses: Iterable[str] = (),
    use: Iterable[str] = (),
    distfiles: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    config_files: Mapping[str, str] | None = None,
    slot: str = "0/0",
    asks_versions: bool = True,
) -> PlannedPackage:
    """A planned package of the repository gentoo."""
    return PlannedPackage(
        cpv=cpv,
        repo="gentoo",
        slot=slot.partition("/")[0],
        sub_slot=slot.partition("/")[2],
        eapi="8",
        use=tuple(use),
        dependencies={"RDEPEND": " ".join(run), "BDEPEND": " ".join(build)},
        restrict=(),
        properties=(),
        phases=("compile",),
        eclasses=tuple(Eclass(name, "gentoo") for name in eclasses),
        distfiles=tuple(
            Distfile(name, 1, {"BLAKE2B": digest}) for name, digest in (distfiles or {}).items()
        ),
        settings=settings or {"CFLAGS": "-O2"},
        config_files=tuple(ConfigFile(*item) for item in (config_files or {}).items()),
        build_needs=tuple(build),
        run_needs=tuple(run),
        asks_versions=asks_versions,
        post_needs=tuple(post),
        seed_needs=tuple(seed),
    )


@dataclass(frozen=True)
class World:
    """Everything that decides about the builds of a chroot: `ids` are by path in gentoo."""

    packages: tuple[PlannedPackage, ...]
    seed: tuple[SeedPackage, ...] = SEED
    cycles: tuple[tuple[str, ...], ...] = ()
    ids: Mapping[str, str] = field(default_factory=dict)
    portage: str = "3.0.83"
    environment: Environment = ENVIRONMENT

    @property
    def plan(self) -> Plan:
        """The plan of the chroot."""
        return Plan(self.portage, self.packages, self.seed, self.cycles)

    @property
    def objects(self) -> Objects:
        """The ids of the plan's files: 0.0 for an ebuild or eclass that `ids` does not have."""
        ids = {}
        for package in self.packages:
            paths = [ebuild(package.cpv), *(eclass(each.name) for each in package.eclasses)]
            ids.update(dict.fromkeys(paths, "0.0"))
        ids.update(self.ids)
        return Objects({("gentoo", path): each for path, each in ids.items()}, {"gentoo": "c" * 40})

    def with_id(self, path: str, value: str) -> World:
        """The same with another content of one file."""
        return replace(self, ids={**self.ids, path: value})

    def with_package(self, package: PlannedPackage) -> World:
        """The same with another package in place of the one with that CPV."""
        packages = tuple(package if p.cpv == package.cpv else p for p in self.packages)
        return replace(self, packages=packages)


def ebuild(cpv: str) -> str:
    """The path of an ebuild; versions here have no hyphen."""
    name, _, version = cpv.rpartition("-")
    return f"{name}/{name.partition('/')[2]}-{version}.ebuild"


def eclass(name: str) -> str:
    """The path of an eclass."""
    return f"eclass/{name}.eclass"


def files(cpv: str) -> str:
    """The path of files/."""
    return f"{cpv.rpartition('-')[0]}/files"


def simulated_identity(own: OwnInputs, buildroot: Mapping[str, str]) -> str:
    """The identity of what a build would make of these inputs.

    It does not depend on comments. Of a package in the buildroot it depends on the identity if
    the build copies something from there, and on the version if it asks for it: some do.
    """
    behaviours = [own.ebuild, own.files, *(own.eclasses[name] for name in sorted(own.eclasses))]
    parts = {
        "files": [each.partition(".")[0] for each in behaviours],
        "distfiles": own.distfiles,
        "use": own.use,
        "settings": {name: value.partition("#")[0] for name, value in own.settings.items()},
        "config": own.config_files,
        "portage": own.portage.partition("#")[0],
        "toolchain": own.toolchain,
        "seed": own.seed,
        "copied": sorted(
            (_name(m), i) for m, i in buildroot.items() if _number(own.cpv, _name(m)) % 2
        ),
        "versions": sorted(
            m for m in buildroot if own.asks_versions and _number(own.cpv, _name(m)) % 3 == 0
        ),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StoredPackage:
    """An entry of the simulated store."""

    identity: str


@dataclass
class Store:
    """A store in memory, and the newest builds of a chroot, by name and slot."""

    entries: dict[str, StoredPackage] = field(default_factory=dict)
    newest: dict[tuple[str, str], EarlierBuild] = field(default_factory=dict)

    def earlier(self, package: PlannedPackage) -> EarlierBuild | None:
        """The newest build of a package in its slot."""
        return self.newest.get((_name(package.cpv), package.slot))


@dataclass(frozen=True)
class Outcome:
    """A simulated build of a whole plan: what was predicted, what happened."""

    decisions: Mapping[str, Decision[StoredPackage]]
    built: tuple[str, ...]
    progress: Progress[StoredPackage]
    closures: Closures


def predict(world: World, store: Store) -> Mapping[str, Decision[StoredPackage]]:
    """The decisions about a world's packages."""
    plan = world.plan
    closures = closure(plan)
    own = own_inputs(plan, closures, world.objects, world.environment)
    return decide(plan, closures, own, store.entries.get, store.earlier)


def build(world: World, store: Store, random: Random | None = None) -> Outcome:
    """Build what the store lacks; what is ready is built in random order."""
    plan = world.plan
    closures = closure(plan)
    own = own_inputs(plan, closures, world.objects, world.environment)
    decisions = decide(plan, closures, own, store.entries.get, store.earlier)
    progress = Progress(closures, own, store.entries.get)
    built: list[str] = []
    waiting: list[Build] = progress.ready()
    while waiting:
        number = random.randrange(len(waiting)) if random else 0
        unit = waiting.pop(number)
        identities = _build_unit(unit, world, closures, own, progress)
        for cpv in unit.packages:
            store.entries[unit.keys[cpv]] = StoredPackage(identities[cpv])
            built.append(cpv)
        progress.built(unit, identities)
        waiting += progress.ready()
    assert progress.identities.keys() == {package.cpv for package in world.packages}
    for package in world.packages:
        key = (_name(package.cpv), package.slot)
        cpv = package.cpv
        identity = progress.identities[cpv]
        buildroot = partial(progress.buildroot, cpv)
        store.newest[key] = EarlierBuild(own[cpv], progress.keys[cpv], identity, buildroot)
    return Outcome(decisions, tuple(built), progress, closures)


def _build_unit(
    unit: Build,
    world: World,
    closures: Closures,
    own: Mapping[str, OwnInputs],
    progress: Progress[StoredPackage],
) -> dict[str, str]:
    outside = {cpv: progress.buildroot(cpv) for cpv in unit.packages}
    for cpv in unit.packages:  # each package after all that is in its buildroot
        assert set(closures.buildroot(cpv)) - set(unit.packages) == set(outside[cpv])
    if len(unit.packages) == 1:
        cpv = unit.packages[0]
        return {cpv: simulated_identity(own[cpv], outside[cpv])}
    cycle = Cycle(closures, unit.packages)
    steps = 0
    while step := cycle.next():
        steps += 1
        names = {_name(cpv) for cpv in step.members}
        older = {
            package.cpv: package.identity
            for package in world.seed
            if _name(package.cpv) in {_name(cpv) for cpv in unit.packages} - names
        }
        seen = {**older, **outside[step.cpv], **step.members}
        cycle.built(step, simulated_identity(own[step.cpv], seen))
    assert len(unit.packages) <= steps <= 2 * len(unit.packages)
    return cycle.identities


def random_world(random: Random, count: int) -> World:
    """A world of some packages that need each other at random, with cycles now and then."""
    cpvs = [f"cat-{number % 3}/pkg{number}-1" for number in range(count)]
    cyclic = random.random()
    packages = []
    for number, cpv in enumerate(cpvs):
        before = cpvs[max(0, number - 8) : number]
        build, run = (_some(random, before, most) for most in (3, 2))
        if cyclic > 0.5 and random.random() < 0.15:
            run = [*run, random.choice(cpvs)]
        if cyclic > 0.8 and random.random() < 0.1:
            build = [*build, random.choice(cpvs)]
        packages.append(
            planned(
                cpv,
                build=dict.fromkeys(each for each in build if each != cpv),
                run=dict.fromkeys(each for each in run if each != cpv),
                eclasses=_some(random, ["a", "b", "c"], 2),
                use=_some(random, ["x", "y"], 2),
                seed=_some(random, [SEED[1].cpv, SEED[2].cpv], 1) if random.random() < 0.2 else (),
                asks_versions=random.random() < 0.5,
            )
        )
    older = tuple(
        SeedPackage(f"{_name(cpv)}-0", f"old {cpv}", toolchain=False)
        for cpv in _some(random, cpvs, 3)
    )
    return World(tuple(packages), (*SEED, *older))


def random_change(random: Random, world: World) -> World:
    """The world after one change of one of all kinds, chosen at random."""
    package = random.choice(world.packages)
    return random.choice(_CHANGES)(random, world, package)


def _other_comment(random: Random, world: World, package: PlannedPackage) -> World:
    path = _one_path(random, package)
    behaviour = world.ids.get(path, "0.0").partition(".")[0]
    return world.with_id(path, f"{behaviour}.{random.randrange(9)}")


def _other_behaviour(random: Random, world: World, package: PlannedPackage) -> World:
    return world.with_id(_one_path(random, package), f"{random.randrange(3)}.0")


def _one_path(random: Random, package: PlannedPackage) -> str:
    choices = [ebuild(package.cpv), files(package.cpv), eclass(random.choice("abc"))]
    return random.choice(choices)


def _other_use(random: Random, world: World, package: PlannedPackage) -> World:
    return world.with_package(replace(package, use=tuple(_some(random, ["x", "y", "z"], 3))))


def _other_setting(random: Random, world: World, package: PlannedPackage) -> World:
    settings = {"CFLAGS": random.choice(["-O2", "-O3", "-O2#", "-O3#"])}
    return world.with_package(replace(package, settings=settings))


def _other_seed(random: Random, world: World, _: PlannedPackage) -> World:
    seed = list(world.seed)
    number = random.randrange(len(seed))
    seed[number] = replace(seed[number], identity=f"seed {random.randrange(3)}")
    return replace(world, seed=tuple(seed))


def _other_portage(random: Random, world: World, _: PlannedPackage) -> World:
    return replace(world, portage=random.choice(["3.0.83", "3.0.84", "3.0.83#"]))


def _fewer_needs(random: Random, world: World, package: PlannedPackage) -> World:
    needs = tuple(each for each in package.build_needs if random.random() < 0.5)
    return world.with_package(replace(package, build_needs=needs))


def _one_more(random: Random, world: World, package: PlannedPackage) -> World:
    more = planned(f"cat-new/more{random.randrange(3)}-1", build=[package.cpv])
    if any(each.cpv.startswith(more.cpv.rpartition("-")[0]) for each in world.packages):
        return world
    return replace(world, packages=(*world.packages, more))


def _other_queries(_random: Random, world: World, package: PlannedPackage) -> World:
    return world.with_package(replace(package, asks_versions=not package.asks_versions))


def _next_version(_random: Random, world: World, package: PlannedPackage) -> World:
    """The world with the next version of a package."""
    name, _, version = package.cpv.rpartition("-")
    new = f"{name}-{int(version) + 1}"

    def renamed(cpvs: Iterable[str]) -> tuple[str, ...]:
        return tuple(new if cpv == package.cpv else cpv for cpv in cpvs)

    packages = tuple(
        replace(
            each,
            cpv=new if each is package else each.cpv,
            build_needs=renamed(each.build_needs),
            run_needs=renamed(each.run_needs),
        )
        for each in world.packages
    )
    path = ebuild(package.cpv)
    ids = {**world.ids, ebuild(new): world.ids.get(path, "0.0")}
    return replace(world, packages=packages, ids=ids)


_CHANGES = (
    _other_comment,
    _other_comment,
    _other_behaviour,
    _other_behaviour,
    _other_use,
    _other_setting,
    _other_seed,
    _other_portage,
    _fewer_needs,
    _other_queries,
    _next_version,
    _next_version,
    _one_more,
)


def _some(random: Random, choices: list[str], most: int) -> list[str]:
    return random.sample(choices, min(random.randint(0, most), len(choices)))


def _name(cpv: str) -> str:
    return cpv.rpartition("-")[0]


def _number(*words: str) -> int:
    return int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:4], "big")
