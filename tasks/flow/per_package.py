"""binpkgs, package by package: what the plan needs and the store lacks is built in buildroots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.flow import build_events, fetching
from tasks.flow.plan import seed_identity
from tasks.records import CHROOT, PLAN, BinpkgsRecord, Inputs
from tasks.site import Chroot
from tasks.system.files import copy_plain, private_folder
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.builder.events import Event
    from tasks.builder.package_builds import BuildSettings, PackageBuilds, SetBuild
    from tasks.builder.pool import Pool
    from tasks.config.tables import Build
    from tasks.planner.closure import Closures
    from tasks.planner.keys import Environment, OwnInputs, PinnedRepository
    from tasks.planner.plan import Plan, PlannedPackage

_MEGABYTE = 1_000_000


def build_set(chroot: Chroot, inputs: Inputs) -> BinpkgsRecord:
    """Build what the store lacks of a chroot's plan, and make a set of all its packages.

    Raises CommandFailed, which names every package that failed; what was built is kept.
    """
    from tasks.builder import account as accounts
    from tasks.builder.package_builds import PackageBuilds
    from tasks.planner import history
    from tasks.publish import sign
    from tasks.store import collect
    from tasks.store.store import Store

    site, layout = chroot.site, chroot.layout
    sign.public_key(site.signing_home, site.config.binhost.signing_key)  # now, not hours later
    order = _order(chroot, inputs, read_plan(chroot, inputs))
    work = PackageBuilds(order)
    _announce(chroot, work)
    _prefetch(chroot, inputs, order, work)
    with build_events.listener(chroot) as listen:
        pool = _pool(chroot, order, work, listen)
        try:
            account = pool.run()
        finally:
            built = [(each.name, each.seconds, each.memory) for each in pool.account.built]
            history.add(layout.build_history, built)
            note("build-account", **accounts.totals(pool.account))
    store = Store(layout)
    store.mark_used(work.used_keys)
    if not account.complete:
        raise accounts.failed(account, chroot.name)
    packages = collect.collect_from_store(
        store, work.packages, order.plan.index_header, layout.binpkgs(chroot.name)
    )
    copy_plain(layout.state / inputs[PLAN(chroot.name)].path, layout.built_plan(chroot.name))
    record = BinpkgsRecord(collect.set_id(packages), packages, inputs[CHROOT(chroot.name)].modified)
    note("set-collected", chroot=chroot.name, packages=len(packages), set=record.set)
    if record.modified:
        note("built-where-modified", chroots=list(record.modified))
    return record


def read_plan(chroot: Chroot, inputs: Inputs) -> Plan:
    """The plan that the record of plan:NAME names, with the dependencies that config.toml adds.

    Raises BinmillError if it was changed, or lacks such a dependency.
    """
    from tasks.planner import extra_needs
    from tasks.planner import plan as plans

    record = inputs[PLAN(chroot.name)]
    plan = plans.read(chroot.layout.state / record.path, record.plan)
    return extra_needs.add(plan, chroot.site.config.build.extra_build_deps, chroot.name)


def own_inputs(
    chroot: Chroot, inputs: Inputs, plan: Plan, closures: Closures
) -> dict[str, OwnInputs]:
    """The own inputs of each package of a plan; raises BinmillError for files that are missing."""
    from tasks.planner import keys

    objects = keys.read_objects(plan, repositories(chroot, inputs))
    return keys.own_inputs(plan, closures, objects, environment(chroot, inputs, plan))


def environment(chroot: Chroot, inputs: Inputs, plan: Plan) -> Environment:
    """The inputs that all packages of a chroot share."""
    from tasks.buildroot import buildroot
    from tasks.planner.keys import Environment

    record = inputs[CHROOT(chroot.name)]
    return Environment(
        recipe=buildroot.RECIPE,
        arch=plan.index_header.get("ARCH", ""),
        seed=seed_identity(record),
        strict=chroot.site.config.build.strict or bool(record.modified),
    )


def repositories(chroot: Chroot, inputs: Inputs) -> dict[str, PinnedRepository]:
    """The repositories of a chroot's ebuilds at their locked commits, by Portage's names."""
    from tasks.planner.keys import PinnedRepository

    layout, tree = chroot.layout, chroot.site.config.tree.name
    return {
        name: PinnedRepository(layout.tree if name == tree else layout.overlay(name), commit)
        for name, commit in sandboxes.repositories(chroot, inputs).items()
    }


def _order(chroot: Chroot, inputs: Inputs, plan: Plan) -> SetBuild:
    from tasks.builder.package_builds import SetBuild
    from tasks.planner.closure import closure
    from tasks.portage import account
    from tasks.publish import published
    from tasks.store.store import highest_builds

    layout, site = chroot.layout, chroot.site
    private_folder(layout.inside)
    distdir = fetching.distdir(chroot)
    for folder in {layout.distfiles, distdir.folder}:
        account.writable_folder(folder)
    closures = closure(plan)
    used = [path for each in site.chroots for path in published.read_paths(each.binhost)]
    return SetBuild(
        chroot=chroot.name,
        plan=plan,
        closures=closures,
        own=own_inputs(chroot, inputs, plan, closures),
        layout=layout,
        highest=highest_builds(used),
        sandbox=partial(sandboxes.own, chroot, inputs),
        fetch=lambda package, log: _fetch(chroot, inputs, [package], log),
        distfiles=tuple({distdir.folder, layout.distfiles}),
        logs=layout.package_logs(chroot.name),
        settings=partial(package_settings, site.config.build),
        keep_failed=bool(inputs.request.options.get("keep_failed")),
    )


def package_settings(build: Build, cpv: str) -> BuildSettings:
    """[build] for one package: of the limits whose patterns match it, the last one counts."""
    from tasks.builder.package_builds import BuildSettings
    from tasks.planner import schedule
    from tasks.portage import emerge
    from tasks.system.sandbox import Limits

    for pattern, own in build.limits.items():
        if schedule.matches(pattern, cpv):
            build = build.model_copy(update=own.model_dump(exclude_none=True))
    limits = Limits(
        seconds=build.package_minutes * 60,
        silence=build.silent_minutes * 60,
        output=build.log_mb * _MEGABYTE,
        memory=build.memory_mb * _MEGABYTE,
        processes=build.processes,
    )
    return BuildSettings(limits, emerge.makeopts(build), build.tmpfs_mb * _MEGABYTE)


def _announce(chroot: Chroot, work: PackageBuilds) -> None:
    from tasks.planner.decide import MayBuild, WillBuild

    decisions = list(work.forecast.values())
    build = sum(isinstance(each, WillBuild) for each in decisions)
    may = sum(isinstance(each, MayBuild) for each in decisions)
    note(
        "packages-planned",
        chroot=chroot.name,
        packages=len(decisions),
        build=build,
        may=may,
        reused=len(decisions) - build - may,
    )


def _prefetch(chroot: Chroot, inputs: Inputs, order: SetBuild, work: PackageBuilds) -> None:
    """Fetch what the packages that are built need, at once: emerge takes seconds to start.

    What is still missing then is fetched once more for its package alone, which fails without it.
    """
    from tasks.builder import distfiles
    from tasks.planner.decide import WillBuild

    packages = [
        package
        for package in order.plan.packages
        if isinstance(work.forecast[package.cpv], WillBuild)
        and distfiles.missing(order.distfiles, package)
    ]
    if not packages:
        return
    log = chroot.log("binpkgs")
    if chroot.config.groups:
        fetching.fetch(chroot, inputs, fetching.distdir(chroot).binds, log)
    else:
        note("distfiles-wanted", chroot=chroot.name, packages=len(packages))
        _fetch(chroot, inputs, packages, log)


def _fetch(chroot: Chroot, inputs: Inputs, packages: Sequence[PlannedPackage], log: Path) -> int:
    """Fetch the distfiles of packages with the chroot's own emerge; returns its exit code."""
    from tasks.portage import emerge

    distdir = fetching.distdir(chroot)
    names = "" if len(packages) > 1 else f"-{packages[0].cpv.replace('/', '.')}"
    with chroot.workspace(f"fetch{names}") as space:
        inside = sandboxes.own(
            chroot, inputs, space, network=True, binds=distdir.binds, variables=distdir.variables
        )
        atoms = [f"={package.cpv}::{package.repo}" for package in packages]
        seconds = chroot.site.config.build.timeout_minutes * 60
        return emerge.fetch_packages(inside, atoms, log, seconds)


def _pool(
    chroot: Chroot, order: SetBuild, work: PackageBuilds, listen: Callable[[Event], None]
) -> Pool:
    from tasks.builder.pool import Pool
    from tasks.planner import history, schedule

    build = chroot.site.config.build
    sizes = {
        package.cpv: sum(file.size for file in package.distfiles) for package in order.plan.packages
    }
    expected = history.expected(sizes, history.read(chroot.layout.build_history))
    units = {
        unit[0]: schedule.Expectation(
            sum(expected[cpv].seconds for cpv in unit), max(expected[cpv].memory for cpv in unit)
        )
        for unit in order.closures.units
    }
    jobs = schedule.jobs(
        order.closures.unit_needs(),
        units,
        build.priorities,
        build.apart,
        {unit[0]: unit for unit in order.closures.units if len(unit) > 1},
    )
    memory = build.memory_mb * _MEGABYTE * build.packages or None
    return Pool(jobs, schedule.Limits(build.packages, memory), work, listen)
