"""The difference between two plans as data, for people and programs.

Packages of two plans are the same one if category, name and slot are: two versions in one slot
cannot be installed together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tasks import messages
from tasks.messages import Field
from tasks.planner.plan import Plan, PlannedPackage, SeedPackage


@dataclass(frozen=True)
class Change:
    """One difference; `code` names its kind and its sentence in the catalogue.

    `package` is the CPV in the newer plan, or in the older one if the newer has none; "" for what
    concerns the whole plan. `name` is the variable, file or kind of dependency that differs.
    `before` and `after` are values, None for none; of lists, `added` and `removed` have the words
    that differ.
    """

    code: str
    package: str = ""
    name: str = ""
    before: str | None = None
    after: str | None = None
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [*(f"+{word}" for word in self.added), *(f"-{word}" for word in self.removed)]
        fields: dict[str, Field] = {
            "package": self.package,
            "name": self.name,
            "before": "nothing" if self.before is None else repr(self.before),
            "after": "nothing" if self.after is None else repr(self.after),
            "words": words,
        }
        return messages.sentence(self.code, fields)

    def plain(self) -> dict[str, Any]:
        """The change as plain data, for programs, with its sentence."""
        return {**asdict(self), "sentence": str(self)}


def compare(before: Plan, after: Plan) -> list[Change]:
    """List the differences between two plans, those of packages in the order of the newer plan.

    That a need has another version is said once, for the needed package. Orders do not count.
    """
    old, new = _by_slot(before), _by_slot(after)
    changes = list(_of_plans(before, after))
    for slot, package in new.items():
        if slot in old:
            changes += _of_package(old[slot], package, _slots(before), _slots(after))
        else:
            changes.append(Change("plan-package-added", package.cpv))
    changes += [
        Change("plan-package-removed", package.cpv)
        for slot, package in old.items()
        if slot not in new
    ]
    return changes


def _of_plans(before: Plan, after: Plan) -> Iterator[Change]:
    """Compare Portage, what the seed has, and the cycles."""
    if before.portage != after.portage:
        yield Change("plan-portage-changed", before=before.portage, after=after.portage)
    old, new = _seed(before), _seed(after)
    for cpv in sorted(old.keys() | new.keys()):
        if cpv not in old:
            yield Change("plan-seed-added", cpv)
        elif cpv not in new:
            yield Change("plan-seed-removed", cpv)
        elif old[cpv] != new[cpv]:
            yield Change(
                "plan-seed-changed", cpv, before=old[cpv].identity, after=new[cpv].identity
            )
    old_cycles, new_cycles = set(before.cycles), set(after.cycles)
    for cycle in sorted(new_cycles - old_cycles):
        yield Change("plan-cycle-added", "", added=cycle)
    for cycle in sorted(old_cycles - new_cycles):
        yield Change("plan-cycle-removed", "", removed=cycle)


def _of_package(
    old: PlannedPackage,
    new: PlannedPackage,
    old_slots: Mapping[str, str],
    new_slots: Mapping[str, str],
) -> Iterator[Change]:
    for code, before, after in (
        ("plan-version-changed", old.cpv, new.cpv),
        ("plan-repo-changed", old.repo, new.repo),
        ("plan-sub-slot-changed", old.sub_slot, new.sub_slot),
        ("plan-eapi-changed", old.eapi, new.eapi),
    ):
        if before != after:
            yield Change(code, new.cpv, before=before, after=after)
    for name, words_before, words_after in (
        ("USE", old.use, new.use),
        ("RESTRICT", old.restrict, new.restrict),
        ("PROPERTIES", old.properties, new.properties),
        ("DEFINED_PHASES", old.phases, new.phases),
        ("INHERITED", _eclasses(old), _eclasses(new)),
    ):
        yield from _of_words("plan-words-changed", new.cpv, name, (words_before, words_after))
    for name, before_needs, after_needs in (
        ("build", old.build_needs, new.build_needs),
        ("run", old.run_needs, new.run_needs),
        ("later", old.post_needs, new.post_needs),
        ("seed", old.seed_needs, new.seed_needs),
    ):
        slots = (
            [old_slots.get(need, need) for need in before_needs],
            [new_slots.get(need, need) for need in after_needs],
        )
        yield from _of_words("plan-needs-changed", new.cpv, name, slots)
    yield from _of_tables(old, new)


def _of_words(
    code: str, cpv: str, name: str, words: tuple[Iterable[str], Iterable[str]]
) -> Iterator[Change]:
    before, after = map(set, words)
    if before != after:
        added, removed = tuple(sorted(after - before)), tuple(sorted(before - after))
        yield Change(code, cpv, name=name, added=added, removed=removed)


def _of_tables(old: PlannedPackage, new: PlannedPackage) -> Iterator[Change]:
    tables: tuple[tuple[str, Mapping[str, str], Mapping[str, str]], ...] = (
        ("plan-setting-changed", old.settings, new.settings),
        ("plan-dependency-changed", _dependencies(old), _dependencies(new)),
        ("plan-distfile-changed", _distfiles(old), _distfiles(new)),
        ("plan-config-file-changed", _config_files(old), _config_files(new)),
    )
    for code, before, after in tables:
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                yield Change(
                    code, new.cpv, name=name, before=before.get(name), after=after.get(name)
                )
    order_before, order_after = list(_config_files(old)), list(_config_files(new))
    if order_before != order_after and set(order_before) == set(order_after):
        yield Change("plan-config-files-reordered", new.cpv)


def _by_slot(plan: Plan) -> dict[str, PlannedPackage]:
    return {_slot(package): package for package in plan.packages}


def _slots(plan: Plan) -> dict[str, str]:
    return {package.cpv: _slot(package) for package in plan.packages}


def _slot(package: PlannedPackage) -> str:
    return f"{package.cp}:{package.slot}"


def _seed(plan: Plan) -> dict[str, SeedPackage]:
    return {package.cpv: package for package in plan.seed}


def _eclasses(package: PlannedPackage) -> list[str]:
    return [f"{each.name}::{each.repo}" for each in package.eclasses]


def _dependencies(package: PlannedPackage) -> dict[str, str]:
    return {str(kind): value for kind, value in package.dependencies.items()}


def _distfiles(package: PlannedPackage) -> dict[str, str]:
    return {
        each.name: " ".join((str(each.size), *map("=".join, sorted(each.digests.items()))))
        for each in package.distfiles
    }


def _config_files(package: PlannedPackage) -> dict[str, str]:
    return {each.path: each.sha512 for each in package.config_files}
