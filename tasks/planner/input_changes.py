"""Changes of inputs: the reasons why a package must be built, as data, and in groups.

Each is a cause as in tasks/causes.py, about one package of a chroot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from tasks import messages
from tasks.causes import Cause
from tasks.messages import Field
from tasks.planner.keys import OwnInputs
from tasks.portage import gpkg
from tasks.text import one_line

_SHOWN = 120  # characters of a setting's value in a sentence


class NoEarlierBuild(Cause):
    """It was never built for this chroot."""

    code: ClassVar[str] = "cause-package-new"


class PackageMissing(Cause):
    """Nothing changed since its last build, but the store does not have it."""

    code: ClassVar[str] = "cause-package-missing"


@dataclass(frozen=True)
class VersionChanged(Cause):
    """Another version was built before; both are CPVs."""

    code: ClassVar[str] = "cause-version"
    before: str = ""
    after: str = ""


class EbuildChanged(Cause):
    """Its ebuild changed."""

    code: ClassVar[str] = "cause-ebuild"


class EbuildFilesChanged(Cause):
    """The files beside its ebuild, in files/, changed."""

    code: ClassVar[str] = "cause-ebuild-files"


@dataclass(frozen=True)
class RepositoryChanged(Cause):
    """Its ebuild comes from another repository."""

    code: ClassVar[str] = "cause-repository"
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class EclassChanged(Cause):
    """An eclass that it inherits changed, as do so many `packages` of the plan (0: unknown)."""

    code: ClassVar[str] = "cause-eclass"
    name: str = ""
    packages: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return messages.sentence(
            "cause-eclass-of-packages" if self.packages else self.code, self.fields
        )


@dataclass(frozen=True)
class EclassAdded(Cause):
    """It inherits one more eclass."""

    code: ClassVar[str] = "cause-eclass-added"
    name: str = ""


@dataclass(frozen=True)
class EclassRemoved(Cause):
    """It does not inherit an eclass any more."""

    code: ClassVar[str] = "cause-eclass-removed"
    name: str = ""


class QueriesChanged(Cause):
    """It may ask for versions of other packages now, or does not any more."""

    code: ClassVar[str] = "cause-version-queries"


@dataclass(frozen=True)
class DistfileChanged(Cause):
    """One of its distfiles has another digest, or is fetched or not fetched now."""

    code: ClassVar[str] = "cause-distfile"
    name: str = ""


@dataclass(frozen=True)
class UseChanged(Cause):
    """Its effective USE changed."""

    code: ClassVar[str] = "cause-use"
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def fields(self) -> Mapping[str, Field]:
        flags = [f"+{flag}" for flag in self.added] + [f"-{flag}" for flag in self.removed]
        return {"flags": " ".join(flags)}


@dataclass(frozen=True)
class DependenciesChanged(Cause):
    """The evaluated value of a dependency variable changed: `RDEPEND` and the like."""

    code: ClassVar[str] = "cause-dependencies"
    variables: Sequence[str] = ()


@dataclass(frozen=True)
class BuildSettingChanged(Cause):
    """A variable that its build sees changed; None: it is not set.

    Without both values, only the name is told: a value may be secret.
    """

    code: ClassVar[str] = "cause-build-setting"
    name: str = ""
    before: str | None = None
    after: str | None = None

    def __str__(self) -> str:
        if self.before is None and self.after is None:
            return messages.sentence("cause-build-setting-name", {"name": self.name})
        return super().__str__()

    @property
    def fields(self) -> Mapping[str, Field]:
        before, after = (
            "unset" if value is None else f'"{one_line(value, _SHOWN)}"'
            for value in (self.before, self.after)
        )
        return {"name": self.name, "before": before, "after": after}


@dataclass(frozen=True)
class ConfigFileChanged(Cause):
    """A patch, a bashrc or an env file has another content."""

    code: ClassVar[str] = "cause-config-file"
    path: str = ""


@dataclass(frozen=True)
class ConfigFileAdded(Cause):
    """One more patch, bashrc or env file applies to it."""

    code: ClassVar[str] = "cause-config-file-added"
    path: str = ""


@dataclass(frozen=True)
class ConfigFileRemoved(Cause):
    """A patch, bashrc or env file does not apply to it any more."""

    code: ClassVar[str] = "cause-config-file-removed"
    path: str = ""


@dataclass(frozen=True)
class PortageChanged(Cause):
    """The chroot has another version of Portage."""

    code: ClassVar[str] = "cause-portage"
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class RecipeChanged(Cause):
    """This version of binmill makes buildroots in another way."""

    code: ClassVar[str] = "cause-recipe"
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class ArchitectureChanged(Cause):
    """The chroot has another architecture."""

    code: ClassVar[str] = "cause-architecture"
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class ToolchainChanged(Cause):
    """Packages of the seed's toolchain have another version or another content."""

    code: ClassVar[str] = "cause-toolchain"
    changes: Sequence[str] = ()


@dataclass(frozen=True)
class SeedPackagesChanged(Cause):
    """Packages of the seed that it needs have another version or another content."""

    code: ClassVar[str] = "cause-seed-packages"
    changes: Sequence[str] = ()


class SeedChanged(Cause):
    """The seed is another one, and all of it counts."""

    code: ClassVar[str] = "cause-seed"


@dataclass(frozen=True)
class DependencyChanged(Cause):
    """A package of its buildroot has the same version and another identity."""

    code: ClassVar[str] = "cause-dependency"
    package: str = ""


@dataclass(frozen=True)
class DependencyReplaced(Cause):
    """A package of its buildroot has another version."""

    code: ClassVar[str] = "cause-dependency-replaced"
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class DependencyAdded(Cause):
    """One more package is in its buildroot."""

    code: ClassVar[str] = "cause-dependency-added"
    package: str = ""


@dataclass(frozen=True)
class DependencyRemoved(Cause):
    """A package is not in its buildroot any more."""

    code: ClassVar[str] = "cause-dependency-removed"
    package: str = ""


@dataclass(frozen=True)
class DependencyMayChange(Cause):
    """A package of its buildroot will or may be built, and can come out different."""

    code: ClassVar[str] = "cause-dependency-may-change"
    package: str = ""


@dataclass(frozen=True)
class BuiltTogether(Cause):
    """It needs packages that need it, and one of them must be built."""

    code: ClassVar[str] = "cause-built-together"
    packages: Sequence[str] = ()


@dataclass(frozen=True)
class EbuildGone(Cause):
    """The repository of its ebuild does not have it any more."""

    code: ClassVar[str] = "cause-ebuild-gone"
    repo: str = ""


@dataclass(frozen=True)
class EclassGone(Cause):
    """An eclass that it inherits is not in its repository any more."""

    code: ClassVar[str] = "cause-eclass-gone"
    name: str = ""


@dataclass(frozen=True)
class NewerVersion(Cause):
    """A repository has got a newer version of it, a CPV."""

    code: ClassVar[str] = "cause-newer-version"
    package: str = ""
    repo: str = ""


class InputsUnchanged(Cause):
    """It is not built: nothing changed since its last build for this chroot."""

    code: ClassVar[str] = "cause-inputs-unchanged"


class BuiltBefore(Cause):
    """It is not built: the store has it, from another chroot or from before its last build."""

    code: ClassVar[str] = "cause-built-before"


class CycleChanged(Cause):
    """It was or is in a dependency cycle, and this is another one than before."""

    code: ClassVar[str] = "cause-cycle"


@dataclass(frozen=True)
class Group:
    """A cause and the packages that have it, in the order in which they were given."""

    cause: Cause
    packages: tuple[str, ...]

    def __str__(self) -> str:
        if isinstance(self.cause, EclassChanged):
            fields = {"name": self.cause.name, "packages": self.packages}
            return messages.sentence("cause-eclass-of-packages", fields)
        fields = {"cause": str(self.cause), "packages": self.packages}
        if len(self.packages) == 1:
            return messages.sentence("cause-of-package", fields)
        return messages.sentence("cause-of-packages", fields)

    def plain(self) -> dict[str, Any]:
        """The group as plain data, for programs."""
        return {"cause": self.cause.plain(), "packages": [*self.packages], "sentence": str(self)}


def grouped(causes: Mapping[str, Iterable[Cause]]) -> list[Group]:
    """Group packages by cause, the cause of most packages first; `causes` are by CPV."""
    groups: dict[str, tuple[Cause, list[str]]] = {}
    for cpv, own in causes.items():
        for cause in own:
            # not by the cause itself: one that came out of JSON has lists, which have no hash
            groups.setdefault(repr((cause.code, _plain_fields(cause))), (cause, []))[1].append(cpv)
    ordered = sorted(groups.values(), key=lambda group: -len(group[1]))
    return [Group(cause, tuple(packages)) for cause, packages in ordered]


def _plain_fields(cause: Cause) -> dict[str, Any]:
    """The fields of a cause, with sequences as tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in asdict(cause).items()
    }


def differences(
    before: OwnInputs,
    after: OwnInputs,
    buildroot_before: Mapping[str, str] | None = None,
    buildroot_after: Mapping[str, str] | None = None,
) -> tuple[Cause, ...]:
    """The changes between two sets of inputs of a package; empty if nothing differs.

    The buildroots have the identity of each package there, by CPV. Of two versions of a package,
    the ebuild is not compared.
    """
    roots = buildroot_before or {}, buildroot_after or {}
    if not after.asks_versions:
        roots = _without_same(roots[0], roots[1]), _without_same(roots[1], roots[0])
    return (
        *_repository_differences(before, after),
        *_configuration_differences(before, after),
        *_platform_differences(before, after),
        *_buildroot_differences(*roots),
    )


def for_everyone(cause: Cause) -> Cause:
    """The cause without what must not be published: a setting may have a password."""
    return BuildSettingChanged(cause.name) if isinstance(cause, BuildSettingChanged) else cause


def _repository_differences(before: OwnInputs, after: OwnInputs) -> Iterator[Cause]:
    if before.cpv != after.cpv:
        yield VersionChanged(before.cpv, after.cpv)
    if before.repo != after.repo:
        yield RepositoryChanged(before.repo, after.repo)
    if before.ebuild != after.ebuild and before.cpv == after.cpv:
        yield EbuildChanged()
    for name in _changed(before.eclasses, after.eclasses):
        if name not in before.eclasses:
            yield EclassAdded(name)
        else:
            yield EclassChanged(name) if name in after.eclasses else EclassRemoved(name)
    if before.files != after.files:
        yield EbuildFilesChanged()
    if before.asks_versions != after.asks_versions:
        yield QueriesChanged()
    yield from map(DistfileChanged, _changed(before.distfiles, after.distfiles))


def _configuration_differences(before: OwnInputs, after: OwnInputs) -> Iterator[Cause]:
    old, new = set(before.use), set(after.use)
    if old != new:
        yield UseChanged(tuple(sorted(new - old)), tuple(sorted(old - new)))
    if variables := _changed(before.dependencies, after.dependencies):
        yield DependenciesChanged(tuple(variables))
    for name in _changed(before.settings, after.settings):
        yield BuildSettingChanged(name, before.settings.get(name), after.settings.get(name))
    for path in _changed(before.config_files, after.config_files):
        if path not in before.config_files:
            yield ConfigFileAdded(path)
        else:
            kept = path in after.config_files
            yield ConfigFileChanged(path) if kept else ConfigFileRemoved(path)


def _platform_differences(before: OwnInputs, after: OwnInputs) -> Iterator[Cause]:
    for kind, old, new in (
        (PortageChanged, before.portage, after.portage),
        (RecipeChanged, before.recipe, after.recipe),
        (ArchitectureChanged, before.arch, after.arch),
    ):
        if old != new:
            yield kind(old, new)
    if changes := _package_changes(before.toolchain, after.toolchain):
        yield ToolchainChanged(tuple(changes))
    if changes := _package_changes(before.seed, after.seed):
        yield SeedPackagesChanged(tuple(changes))
    if before.strict_seed != after.strict_seed:
        yield SeedChanged()


def _buildroot_differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Cause]:
    for old, new in _matched(before, after):
        if old == new:
            yield DependencyChanged(new)
        elif old and new:
            yield DependencyReplaced(old, new)
        else:
            yield DependencyAdded(new) if new else DependencyRemoved(old)


def _without_same(packages: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """Packages without those of which the others have any version with the same identity."""
    same = {(gpkg.parse_cpv(cpv).cp, identity) for cpv, identity in others.items()}
    return {
        cpv: identity
        for cpv, identity in packages.items()
        if (gpkg.parse_cpv(cpv).cp, identity) not in same
    }


def _package_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Changes of identities by CPV, in words."""
    return [
        f"{new} has other content" if old == new else f"{old or 'none'} -> {new or 'none'}"
        for old, new in _matched(before, after)
    ]


def _matched(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str]]:
    """The CPVs whose identities differ, before and after; "" where there is none.

    A version that is gone and one that is new belong together if the package has one of each.
    """
    changed = _changed(before, after)
    gone: dict[str, list[str]] = {}
    new: dict[str, list[str]] = {}
    for cpv in changed:
        if cpv not in after:
            gone.setdefault(gpkg.parse_cpv(cpv).cp, []).append(cpv)
        elif cpv not in before:
            new.setdefault(gpkg.parse_cpv(cpv).cp, []).append(cpv)
    pairs = [(cpv, cpv) for cpv in changed if cpv in before and cpv in after]
    for name in sorted(gone.keys() | new.keys()):
        old_versions, new_versions = gone.get(name, []), new.get(name, [])
        if len(old_versions) == len(new_versions) == 1:
            pairs.append((old_versions[0], new_versions[0]))
        else:
            pairs += [(cpv, "") for cpv in old_versions] + [("", cpv) for cpv in new_versions]
    return pairs


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The names whose values differ, sorted."""
    if before == after:
        return []
    return sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
