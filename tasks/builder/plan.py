"""Plans: the packages that a chroot needs, in the order in which its own Portage would build them.

A plan is data: what each package is, what it needs to be built and to run, and everything that
decides how it is built, apart from the files of the repositories, which its commits determine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from tasks.errors import BinmillError
from tasks.system.files import write_atomic


@dataclass(frozen=True)
class Distfile:
    """A file that a package fetches: its name, its size in bytes, its digests by name."""

    name: str
    size: int
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Eclass:
    """An inherited eclass and the repository that it is read from."""

    name: str
    repo: str


@dataclass(frozen=True)
class ConfigFile:
    """A file of the configuration that only some packages see: a patch, a bashrc, an env file.

    `path` is the one inside; `sha512` is that of its content.
    """

    path: str
    sha512: str


@dataclass(frozen=True)
class PlannedPackage:
    """One package of a plan, as the chroot's Portage resolved it.

    `cpv` is CATEGORY/NAME-VERSION. `use` has the flags of IUSE_EFFECTIVE that are on, sorted.
    `dependencies` has the evaluated value of each *DEPEND variable. `eclasses` are all that it
    inherits, directly or not. `settings` are the variables that its build will see, without those
    that differ between machines. `build_needs` and `run_needs` are CPVs of the plan: what must be
    installed before it is built, and what it needs to run. `seed_needs` are CPVs of packages that
    only the seed has and that satisfy one of its dependencies; `post_needs` may come later
    (PDEPEND), and order nothing.
    """

    cpv: str
    repo: str
    slot: str
    sub_slot: str
    eapi: str
    use: tuple[str, ...]
    dependencies: Mapping[str, str]
    restrict: tuple[str, ...]
    properties: tuple[str, ...]
    phases: tuple[str, ...]
    eclasses: tuple[Eclass, ...]
    distfiles: tuple[Distfile, ...]
    settings: Mapping[str, str]
    config_files: tuple[ConfigFile, ...]
    build_needs: tuple[str, ...]
    run_needs: tuple[str, ...]
    post_needs: tuple[str, ...] = ()
    seed_needs: tuple[str, ...] = ()

    @property
    def category(self) -> str:
        """The category of its CPV."""
        return self.cpv.partition("/")[0]


@dataclass(frozen=True)
class SeedPackage:
    """A package that the seed's database has: `identity` is a digest of its contents and metadata.

    `toolchain` is true for what every build uses without saying so: the compiler, binutils, the C
    library, kernel headers, make, Portage.
    """

    cpv: str
    identity: str
    toolchain: bool


@dataclass(frozen=True)
class Plan:
    """The plan of one chroot: its packages, in Portage's order of merging.

    `portage` is the version of the Portage that made it, `seed` what the seed's package database
    has. `cycles` are sets of packages that need each other to be built, each in merge order.
    """

    portage: str
    packages: tuple[PlannedPackage, ...]
    seed: tuple[SeedPackage, ...] = ()
    cycles: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def by_cpv(self) -> Mapping[str, PlannedPackage]:
        """The packages by CPV."""
        return {package.cpv: package for package in self.packages}


def parse(text: str | bytes) -> Plan:
    """Parse a plan; raises ValueError for anything else.

    Nothing of it is trusted: types are strict, unknown keys are refused, every CPV that is needed
    must be in the plan, and none may occur twice.
    """
    plan: Plan = _adapter().validate_json(text)
    if len(plan.by_cpv) != len(plan.packages):
        raise ValueError("a package occurs twice")
    seed = {package.cpv for package in plan.seed}
    for package in plan.packages:
        for need in (*package.build_needs, *package.run_needs, *package.post_needs):
            if need not in plan.by_cpv:
                raise ValueError(f"{package.cpv} needs {need}, which is not in the plan")
        for need in package.seed_needs:
            if need not in seed:
                raise ValueError(f"{package.cpv} needs {need}, which the seed does not have")
    return plan


def render(plan: Plan) -> str:
    """The JSON of a plan; equal plans give equal texts."""
    data = _adapter().dump_python(plan, mode="json")
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read(path: Path) -> Plan:
    """Read a plan that `write` wrote; raises BinmillError if it is unreadable."""
    try:
        return parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BinmillError("plan-unreadable", path=path, cause=str(error)[:300]) from error


def write(plan: Plan, path: Path) -> None:
    """Write a plan in one step."""
    write_atomic(path, render(plan))


def _adapter() -> TypeAdapter[Any]:
    strict: Any = Plan
    strict.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    return TypeAdapter(strict)
