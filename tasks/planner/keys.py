"""Keys: digests of everything that decides how a package is built.

The *own inputs* of a package are known before anything is built. Its *input key* covers them and
the identity of every package in its buildroot, so it is known as soon as these are built. Packages
with equal keys are the same package.

For a build that may ask for versions (`has_version`, `best_version`), a package in its buildroot
counts with its version, too: what the build is told is not in the identity of the other package.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.planner.closure import Closures, numbers
from tasks.planner.plan import Distfile, Plan, PlannedPackage
from tasks.portage import gpkg
from tasks.system import git

# Of a distfile's digests, the first of these that its Manifest has: a Manifest that gains or loses
# another one is about the same file.
_DIGESTS = ("BLAKE2B", "SHA512", "SHA256")
_ECLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")  # PMS 3.1.6
_FORM = b"binmill input key 1\n"


@dataclass(frozen=True)
class OwnInputs:
    """Everything that decides how a package is built, apart from the packages in its buildroot.

    `ebuild`, `eclasses` (by name) and `files` (its files/, "" for none) are git object ids;
    `distfiles` has a digest by name, `config_files` the SHA-512 by path. `toolchain` and `seed`
    have identities by CPV: the packages of the seed that every build uses, and those that this one
    or a package in its buildroot needs. `strict_seed` is the SHA-512 of the seed's tarball where
    the whole seed counts, else "". `recipe` is the version of the way in which buildroots are made.
    Without `asks_versions`, the packages in its buildroot count without their versions.
    """

    cpv: str
    repo: str
    ebuild: str
    eclasses: Mapping[str, str]
    files: str
    distfiles: Mapping[str, str]
    use: tuple[str, ...]
    dependencies: Mapping[str, str]
    settings: Mapping[str, str]
    config_files: Mapping[str, str]
    portage: str
    recipe: str
    arch: str
    toolchain: Mapping[str, str]
    seed: Mapping[str, str]
    strict_seed: str = ""
    asks_versions: bool = True

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of them all; it does not depend on the order of a mapping."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Environment:
    """Inputs that all packages of a chroot share.

    `seed` is the SHA-512 of the seed's tarball. It counts if `strict` is true, and where the seed's
    package database does not tell what its toolchain is.
    """

    recipe: str
    arch: str
    seed: str
    strict: bool = False


@dataclass(frozen=True)
class PinnedRepository:
    """A repository of ebuilds: the bare git repository, and the commit that config.lock pins."""

    path: Path
    commit: str


@dataclass(frozen=True)
class Objects:
    """Git object ids of a plan's files: `ids` by repository and path, of pinned `commits`."""

    ids: Mapping[tuple[str, str], str]
    commits: Mapping[str, str]

    def id_of(self, package: str, repo: str, path: str) -> str:
        """The id of a file that a package needs; raises BinmillError where there is none."""
        if repo not in self.commits:
            raise BinmillError("planned-repository-unknown", package=package, repo=repo)
        object_id = self.ids.get((repo, path))
        if object_id is None:
            raise BinmillError(
                "planned-file-missing",
                package=package,
                repo=repo,
                commit=self.commits[repo],
                path=path,
            )
        return object_id


def read_objects(plan: Plan, repositories: Mapping[str, PinnedRepository]) -> Objects:
    """Look up the ids of all ebuilds, eclasses and files/ of a plan, with one git per repository.

    `repositories` are those of the chroot by the names that Portage has for them. Raises
    BinmillError where a file that the plan names is not in its commit.
    """
    objects = look_up(plan, repositories)
    for package, repo, path in ebuilds_and_eclasses(plan):
        objects.id_of(package.cpv, repo, path)
    return objects


def look_up(plan: Plan, repositories: Mapping[str, PinnedRepository]) -> Objects:
    """The ids of those files of a plan that its repositories have, as `read_objects`."""
    paths: dict[str, dict[str, str]] = {}  # by repository: the type that a path must have
    for package in plan.packages:
        ebuild, files = _paths(package)
        paths.setdefault(package.repo, {}).update({ebuild: "blob", files: "tree"})
        for name, repo in _eclasses(package).items():
            paths.setdefault(repo, {})[_eclass_path(name)] = "blob"
    ids = {}
    for repo, wanted in paths.items():
        if pinned := repositories.get(repo):
            objects = git.objects_at(pinned.path, pinned.commit, sorted(wanted))
            for path, known in objects.items():
                if known is not None and known[0] == wanted[path]:
                    ids[repo, path] = known[1]
    return Objects(ids, {name: pinned.commit for name, pinned in repositories.items()})


def ebuilds_and_eclasses(plan: Plan) -> Iterator[tuple[PlannedPackage, str, str]]:
    """The files without which a package cannot be built: each package, repository and path."""
    for package in plan.packages:
        yield package, package.repo, _paths(package)[0]
        for name, repo in _eclasses(package).items():
            yield package, repo, _eclass_path(name)


def own_inputs(
    plan: Plan, closures: Closures, objects: Objects, environment: Environment
) -> dict[str, OwnInputs]:
    """The own inputs of each package of a plan, by CPV."""
    toolchain = {package.cpv: package.identity for package in plan.seed if package.toolchain}
    whole = environment.strict or not toolchain
    seeds = _seed_packages(plan, closures)
    return {
        package.cpv: OwnInputs(
            cpv=package.cpv,
            repo=package.repo,
            ebuild=objects.id_of(package.cpv, package.repo, _paths(package)[0]),
            eclasses={
                name: objects.id_of(package.cpv, repo, _eclass_path(name))
                for name, repo in _eclasses(package).items()
            },
            files=objects.ids.get((package.repo, _paths(package)[1]), ""),
            distfiles={file.name: _digest(file) for file in package.distfiles},
            use=tuple(sorted(package.use)),
            dependencies={str(kind): value for kind, value in package.dependencies.items()},
            settings=package.settings,
            config_files={file.path: file.sha512 for file in package.config_files},
            portage=plan.portage,
            recipe=environment.recipe,
            arch=environment.arch,
            toolchain=toolchain,
            seed=seeds[package.cpv],
            strict_seed=environment.seed if whole else "",
            asks_versions=package.asks_versions,
        )
        for package in plan.packages
    }


def unit_keys(members: Sequence[tuple[OwnInputs, Iterable[bytes]]]) -> dict[str, str]:
    """The input keys of the packages of a unit, by CPV, from their own inputs and buildroots.

    A buildroot is given by its `identity_line`s, sorted by CPV. The packages of a cycle are built
    together, in the order given, so the key of each depends on the inputs of all.
    """
    keys = {own.cpv: _digest_of([own.digest], lines) for own, lines in members}
    if len(keys) == 1:
        return keys
    return {cpv: _digest_of(["cycle", cpv, *keys.values()]) for cpv in keys}


def step_key(key: str, members: Mapping[str, str]) -> str:
    """The key of one build in a cycle: that of its package, and what it sees of the cycle."""
    lines = (identity_line(cpv, members[cpv]) for cpv in sorted(members))
    return _digest_of(["cycle step", key], lines)


def _digest_of(words: Sequence[str], lines: Iterable[bytes] = ()) -> str:
    """The SHA-256 of words and lines."""
    head = json.dumps(words).encode() + b"\n"
    return hashlib.sha256(b"".join((_FORM, head, *lines))).hexdigest()


def identity_line(cpv: str, identity: str | None = None, *, version: bool = True) -> bytes:
    """The line that stands for a package of a buildroot in the input keys of others.

    Without an identity, it is one of the same cycle. `version` is false for the keys of packages
    that ask for none.
    """
    name = cpv if version else gpkg.parse_cpv(cpv).cp
    return json.dumps([name, identity]).encode() + b"\n"


def _seed_packages(plan: Plan, closures: Closures) -> dict[str, dict[str, str]]:
    """For each package the packages of the seed that count, with their identities.

    They are those that it or a package in its buildroot needs: the identity of that one does not
    say what it needs when it runs. In the first round of a cycle, the seed's older builds of its
    packages are used. Few plans have any of them, so equal results are shared.
    """
    identities = {package.cpv: package.identity for package in plan.seed}
    needs = {
        closures.number[package.cpv]: set(package.seed_needs)
        for package in plan.packages
        if package.seed_needs
    }
    with_needs = sum(1 << number for number in needs)
    known: dict[frozenset[str], dict[str, str]] = {}
    result = {}
    for unit in closures.units:
        older = _older_builds(plan, unit) if len(unit) > 1 else set()
        for cpv in unit:
            number = closures.number[cpv]
            counting = (closures.buildroots[number] | 1 << number) & with_needs
            cpvs = frozenset(older.union(*(needs[member] for member in numbers(counting))))
            if cpvs not in known:
                known[cpvs] = {each: identities[each] for each in sorted(cpvs)}
            result[cpv] = known[cpvs]
    return result


def _older_builds(plan: Plan, unit: Iterable[str]) -> set[str]:
    """The packages of the seed that have the name of one in the unit."""
    names = {gpkg.parse_cpv(cpv).cp for cpv in unit}
    return {package.cpv for package in plan.seed if gpkg.parse_cpv(package.cpv).cp in names}


def _paths(package: PlannedPackage) -> tuple[str, str]:
    """The paths of its ebuild and of its files/ in its repository; raises NotTrusted."""
    name = gpkg.parse_cpv(package.cpv)
    return f"{name.cp}/{name.package}-{name.version}.ebuild", f"{name.cp}/files"


def _eclasses(package: PlannedPackage) -> dict[str, str]:
    """The repository of each eclass that it inherits; raises BinmillError for an odd name."""
    for eclass in package.eclasses:
        if not _ECLASS.fullmatch(eclass.name):
            raise BinmillError("planned-name-malformed", package=package.cpv, name=eclass.name)
    return {eclass.name: eclass.repo for eclass in package.eclasses}


def _eclass_path(name: str) -> str:
    return f"eclass/{name}.eclass"


def _digest(file: Distfile) -> str:
    names = [name for name in _DIGESTS if name in file.digests][:1] or sorted(file.digests)
    return " ".join(f"{name}:{file.digests[name]}" for name in names)


def render(own: OwnInputs) -> str:
    """The JSON of own inputs; equal ones give equal texts."""
    data = _adapter().dump_python(own, mode="json")
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def parse(text: str | bytes) -> OwnInputs:
    """Parse own inputs that `render` wrote; raises ValueError for anything else."""
    own: OwnInputs = _adapter().validate_json(text)
    return own


def _adapter() -> Any:
    from pydantic import ConfigDict, TypeAdapter

    strict: Any = OwnInputs
    strict.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    return TypeAdapter(strict)
