"""Plans: the packages that a chroot needs, in the order in which its own Portage would build them.

A plan is data: what each package is, what it needs to be built and to run, and everything that
decides how it is built, apart from the files of the repositories, which its commits determine.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter

from tasks.errors import BinmillError, NotTrusted
from tasks.portage import gpkg
from tasks.portage.inside.plan import cycles as find_cycles
from tasks.system.files import write_parts
from tasks.text import count

LONGEST = 256 << 20  # bytes of a plan: 20,000 packages have about 100 MB
MOST = 100_000  # packages: closures take memory in proportion to the square of their number
_LONGEST_VALUE = 1 << 20  # characters of a setting or of a dependency string


def _form(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=f"^(?:{pattern})$")


def _check_path(path: str) -> str:
    if not path.startswith("/") or posixpath.normpath(path) != path:
        raise ValueError("not an absolute path in its shortest form")
    return path


# The forms of names: PMS 3.1 and 3.2.
Cpv = Annotated[
    str,
    _form(r"[A-Za-z0-9_][A-Za-z0-9+_.-]{0,99}/[A-Za-z0-9_][A-Za-z0-9+_-]{0,127}-[0-9][0-9a-z_.-]*"),
    StringConstraints(max_length=250),  # its PF is a file name
]
Repo = Annotated[str, _form("[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")]
Slot = Annotated[str, _form("[A-Za-z0-9_][A-Za-z0-9+_.-]{0,99}")]
Flag = Annotated[str, _form("[A-Za-z0-9][A-Za-z0-9+_@-]{0,99}")]
EclassName = Annotated[str, _form("[A-Za-z_][A-Za-z0-9_.-]{0,99}")]
Phase = Annotated[str, _form("[a-z_]{1,32}")]
Word = Annotated[str, _form(r"[^\x00-\x20\x7f]{1,255}")]
Variable = Annotated[str, _form("[A-Za-z_][A-Za-z0-9_]{0,199}")]
Value = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=_LONGEST_VALUE)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00\r\n]*$", max_length=_LONGEST_VALUE)]
FileName = Annotated[str, _form(r"[^\x00-\x20\x7f/.-][^\x00-\x20\x7f/]{0,254}")]
DigestName = Annotated[str, _form("[A-Z0-9_]{1,32}")]
Hex = Annotated[str, _form("[0-9a-f]{16,256}")]
Sha512 = Annotated[str, _form("[0-9a-f]{128}")]
AbsolutePath = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,4096}$"), AfterValidator(_check_path)
]
Identity = Annotated[str, _form("[0-9A-Za-z:_-]{0,128}")]
Version = Annotated[str, _form("[0-9A-Za-z][0-9A-Za-z._+-]{0,63}")]
DependencyKind = Literal["BDEPEND", "DEPEND", "RDEPEND", "IDEPEND", "PDEPEND"]


@dataclass(frozen=True)
class Distfile:
    """A file that a package fetches: its name, its size in bytes, its digests by name."""

    name: FileName
    size: Annotated[int, Field(ge=0, lt=1 << 50)]
    digests: Annotated[Mapping[DigestName, Hex], Field(min_length=1)]


@dataclass(frozen=True)
class Eclass:
    """An inherited eclass and the repository that it is read from."""

    name: EclassName
    repo: Repo


@dataclass(frozen=True)
class ConfigFile:
    """A file of the configuration that only some packages see: a patch or a bashrc.

    `path` is the one inside; `sha512` is that of its content.
    """

    path: AbsolutePath
    sha512: Sha512


@dataclass(frozen=True)
class PlannedPackage:
    """One package of a plan, as the chroot's Portage resolved it.

    `cpv` is CATEGORY/NAME-VERSION. `use` has the flags of IUSE_EFFECTIVE that are on, sorted.
    `dependencies` has the evaluated value of each *DEPEND variable that is not empty. `eclasses`
    are all that it inherits, directly or not. `settings` are the variables that its build will see,
    without those that differ between machines or runs (inside/plan.py lists them); the values that
    package.env gives are among them. `config_files` are bashrcs, in the order in which they are
    sourced, then patches, in the order in which they are applied.

    `build_needs` and `run_needs` are CPVs of the plan: what must be installed before it is built
    and merged (BDEPEND, DEPEND, IDEPEND), and what it needs to run (RDEPEND, IDEPEND); `post_needs`
    may come later (PDEPEND), and order nothing. `seed_needs` are CPVs of the seed: what satisfies a
    dependency that nothing in the plan does, an older build of the package itself if it needs one,
    and, in a cycle, what the seed has in the place of its build_needs.

    `asks_versions` is false if nothing in its ebuild, eclasses, bashrcs and patches can ask which
    versions of other packages are installed.
    """

    cpv: Cpv
    repo: Repo
    slot: Slot
    sub_slot: Slot
    eapi: Slot
    use: tuple[Flag, ...]
    dependencies: Mapping[DependencyKind, Value]
    restrict: tuple[Word, ...]
    properties: tuple[Word, ...]
    phases: tuple[Phase, ...]
    eclasses: tuple[Eclass, ...]
    distfiles: tuple[Distfile, ...]
    settings: Mapping[Variable, Value]
    config_files: tuple[ConfigFile, ...]
    build_needs: tuple[Cpv, ...]
    run_needs: tuple[Cpv, ...]
    asks_versions: bool
    post_needs: tuple[Cpv, ...] = ()
    seed_needs: tuple[Cpv, ...] = ()

    @property
    def category(self) -> str:
        """The category of its CPV."""
        return self.cpv.partition("/")[0]

    @property
    def cp(self) -> str:
        """Its category and name, CATEGORY/NAME."""
        return gpkg.parse_cpv(self.cpv).cp


@dataclass(frozen=True)
class SeedPackage:
    """A package that the seed has: `identity` is a digest of its contents and metadata.

    Of a package that is only in package.provided no file is known: its identity is a digest of the
    whole seed. `toolchain` is true for what every build uses without saying so: the compiler,
    binutils, the C library, kernel headers, make, Portage.
    """

    cpv: Cpv
    identity: Identity
    toolchain: bool


@dataclass(frozen=True)
class Plan:
    """The plan of one chroot: its packages, in Portage's order of merging.

    That order may contradict build_needs where the seed satisfies them as well. `portage` is the
    version of the Portage that made it, `seed` what the seed's package database has, and
    package.provided. `cycles` are sets of packages that need each other to be built, each in merge
    order. `index_header` is the header that this Portage writes into an index (`Packages`).
    """

    portage: Version
    packages: tuple[PlannedPackage, ...]
    seed: tuple[SeedPackage, ...] = ()
    cycles: tuple[tuple[Cpv, ...], ...] = ()
    index_header: Mapping[Variable, Line] = field(default_factory=dict)

    @cached_property
    def by_cpv(self) -> Mapping[str, PlannedPackage]:
        """The packages by CPV."""
        return {package.cpv: package for package in self.packages}


def parse(text: str | bytes, seed: str = "") -> Plan:
    """Parse a plan; raises ValueError for anything else.

    Nothing of it is trusted: its size is limited, types and names are strict, unknown keys are
    refused, every CPV that is needed must be in the plan, and none may occur twice. `seed` is the
    identity of the whole seed, for a plan that comes from a chroot: packages that are only provided
    get it.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has more than {LONGEST} bytes")
    plan: Plan = _adapter(Plan).validate_json(text)
    if len(plan.packages) > MOST:
        raise ValueError(f"it has more than {count(MOST, 'package')}")
    if seed:
        plan = _with_identity(plan, seed)
    for check in (_check_names, _check_needs, _check_lists, _check_cycles):
        for flaw in check(plan):
            raise ValueError(flaw)
    return plan


def render(plan: Plan) -> str:
    """The JSON of a plan, a line for each package; equal plans give equal texts."""
    return "".join(_lines(plan))


def read(path: Path, sha256: str | None = None) -> Plan:
    """Read a plan that `write` wrote; raises BinmillError for a damaged one, or another digest."""
    try:
        raw = path.read_bytes()
        if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256:
            raise ValueError("it was changed")
        return parse(raw)
    except (OSError, ValueError) as error:
        raise BinmillError("plan-unreadable", path=path, cause=str(error)[:300]) from error


def write(plan: Plan, path: Path) -> None:
    """Write a plan in one step."""
    write_parts(path, (line.encode() for line in _lines(plan)))


def digest(plan: Plan) -> str:
    """The SHA-256 of a plan's JSON, in hex."""
    summing = hashlib.sha256()
    for line in _lines(plan):
        summing.update(line.encode())
    return summing.hexdigest()


def _lines(plan: Plan) -> Iterator[str]:
    """The lines of a plan's JSON; a large plan is not in memory twice."""
    rest = _adapter(Plan).dump_python(replace(plan, packages=()), mode="json")
    del rest["packages"]
    yield _json(rest)[:-1] + ', "packages": ['
    for number, package in enumerate(plan.packages):
        data = _adapter(PlannedPackage).dump_python(package, mode="json")
        yield ("," if number else "") + "\n" + _json(data)
    yield "\n]}\n"


def _json(data: Any) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def _with_identity(plan: Plan, seed: str) -> Plan:
    packages = (each if each.identity else replace(each, identity=seed) for each in plan.seed)
    return replace(plan, seed=tuple(packages))


def _check_names(plan: Plan) -> Iterator[str]:
    """Find CPVs that are none, or occur twice, and packages of the seed without identity."""
    if len(plan.by_cpv) != len(plan.packages):
        yield "a package occurs twice"
    if len({package.cpv for package in plan.seed}) != len(plan.seed):
        yield "a package of the seed occurs twice"
    for cpv in (*plan.by_cpv, *(package.cpv for package in plan.seed)):
        try:
            gpkg.parse_cpv(cpv)
        except NotTrusted:
            yield f"{cpv} is not the name of a package with its version"
    for package in plan.seed:
        if not package.identity:
            yield f"{package.cpv} of the seed has no identity"


def _check_needs(plan: Plan) -> Iterator[str]:
    """Find needs of packages that do not exist, and of the package itself."""
    seed = {package.cpv for package in plan.seed}
    for package in plan.packages:
        for need in (*package.build_needs, *package.run_needs, *package.post_needs):
            if need not in plan.by_cpv:
                yield f"{package.cpv} needs {need}, which is not in the plan"
            if need == package.cpv:
                yield f"{package.cpv} needs itself"
        for need in package.seed_needs:
            if need not in seed:
                yield f"{package.cpv} needs {need}, which the seed does not have"


def _check_lists(plan: Plan) -> Iterator[str]:
    """Find lists that are not sorted, or have something twice: equal plans have equal texts."""
    for package in plan.packages:
        lists: tuple[tuple[str, Sequence[str]], ...] = (
            ("use", package.use),
            ("restrict", package.restrict),
            ("properties", package.properties),
            ("phases", package.phases),
            ("eclasses", [each.name for each in package.eclasses]),
            ("distfiles", [each.name for each in package.distfiles]),
            ("build_needs", package.build_needs),
            ("run_needs", package.run_needs),
            ("post_needs", package.post_needs),
            ("seed_needs", package.seed_needs),
        )
        for name, values in lists:
            if list(values) != sorted(set(values)):
                yield f"{name} of {package.cpv} is not a sorted list of different words"
        paths = [each.path for each in package.config_files]
        if len(paths) != len(set(paths)):
            yield f"config_files of {package.cpv} has a file twice"


def _check_cycles(plan: Plan) -> Iterator[str]:
    """Compare the cycles with those that the needs have."""
    expected = find_cycles(
        {package.cpv: package.build_needs for package in plan.packages},
        {package.cpv: package.run_needs for package in plan.packages},
    )
    if [list(cycle) for cycle in plan.cycles] != expected:
        yield "its cycles are not those that its packages have"


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    strict: tuple[Any, ...] = (Distfile, Eclass, ConfigFile, PlannedPackage, SeedPackage, Plan)
    for each in strict:
        each.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    return TypeAdapter(kind)
