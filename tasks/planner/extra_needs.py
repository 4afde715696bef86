"""Build dependencies that config.toml adds to packages whose ebuilds do not declare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tasks.errors import BinmillError
from tasks.planner.plan import Plan, PlannedPackage
from tasks.planner.schedule import matches


def add(plan: Plan, extra: Mapping[str, Sequence[str]], chroot: str) -> Plan:
    """Add build needs to the packages of a plan that match a pattern; pure.

    `extra` has CATEGORY/NAME of packages by pattern (see `schedule.matches`): each version that the
    plan has of them is needed. So they are in the buildroot, and in the key. Raises BinmillError
    for one that the plan lacks, if a package of the plan needs it.
    """
    if not extra:
        return plan
    versions: dict[str, list[str]] = {}
    for package in plan.packages:
        versions.setdefault(package.cp, []).append(package.cpv)

    def changed(package: PlannedPackage) -> PlannedPackage:
        needs = dict.fromkeys(package.build_needs)
        for pattern, names in extra.items():
            for name in names if matches(pattern, package.cpv) else ():
                if name not in versions:
                    raise BinmillError(
                        "extra-dependency-not-planned", chroot=chroot, package=name, pattern=pattern
                    )
                needs |= dict.fromkeys(cpv for cpv in versions[name] if cpv != package.cpv)
        return replace(package, build_needs=tuple(needs))

    return replace(plan, packages=tuple(map(changed, plan.packages)))
