"""The forecast of binpkgs:NAME: which packages would be built, and why. Reads only.

Nothing is entered, fetched or resolved: the newest plan, the repositories and the store tell it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks import lock as lock_file
from tasks import records
from tasks.causes import Cause, MayChange
from tasks.chroot.sandboxes import own_keys
from tasks.errors import BinmillError, Stale
from tasks.records import CHECK, CHROOT, LOCK, MOUNT, OVERLAY, PLAN, SEED, TREE, Inputs
from tasks.site import Chroot

if TYPE_CHECKING:
    from tasks.planner.forecast import Forecast
    from tasks.planner.keys import Objects, OwnInputs, PinnedRepository
    from tasks.planner.plan import Plan, PlannedPackage


def forecast(chroot: Chroot, stale: Mapping[str, Cause]) -> Forecast:
    """The forecast of a chroot's build; `stale` has the causes of all tasks that would run.

    Raises Stale if there is no plan yet, BinmillError if something cannot be read.
    """
    from tasks.builder.package_builds import earlier_builds
    from tasks.flow import per_package
    from tasks.planner import forecast as forecasts
    from tasks.planner import history
    from tasks.planner.closure import closure
    from tasks.planner.decide import decide
    from tasks.store.store import Store

    layout, name = chroot.layout, chroot.name
    _check_readable(chroot)
    inputs = records.reading(layout, (*own_keys(chroot), PLAN(name)))
    try:
        plan = per_package.read_plan(chroot, inputs)
        for pinned in per_package.repositories(chroot, inputs).values():
            if not (pinned.path / "HEAD").exists():  # git would be told to create it
                raise BinmillError(
                    "repository-damaged", repository=pinned.path, cause="HEAD is missing"
                )
        closures = closure(plan)
        if PLAN(name).task in stale:
            causes = _causes(chroot, stale)
            own, unsure = _present_inputs(chroot, inputs, plan, causes)
        else:
            causes, unsure = [], {}
            own = per_package.own_inputs(chroot, inputs, plan, closures)
    except Stale:
        raise Stale("forecast-no-plan", chroot=name) from None
    store = Store(layout)
    earlier = earlier_builds(store, name)

    def last_key(package: PlannedPackage) -> str | None:
        last = store.last_inputs(name, package.cpv, package.slot)
        return last[1].get("key") if last else None

    decisions = decide(plan, closures, own, store.lookup, earlier, unsure=unsure)
    past = history.read(layout.build_history)
    return replace(
        forecasts.forecast(name, plan, decisions, last_key, past), outdated=tuple(causes)
    )


def _check_readable(chroot: Chroot) -> None:
    """Raise BinmillError if this user cannot read plans and packages, which others must not."""
    for folder in (chroot.layout.plans, chroot.layout.store):
        if folder.exists() and not os.access(folder, os.R_OK | os.X_OK):
            raise BinmillError("forecast-private", path=folder)


def _causes(chroot: Chroot, stale: Mapping[str, Cause]) -> list[Cause]:
    """The causes for which plan:NAME will run: its own, and those of the tasks before it."""
    lineage = [CHROOT(each.name) for each in chroot.lineage]
    before = [LOCK(), *own_keys(chroot), SEED(chroot.seed), *lineage, MOUNT(chroot.name)]
    plan = PLAN(chroot.name).task
    tasks = [*(key.task for key in before), CHECK(chroot.name).task, plan]
    causes = [cause for task in dict.fromkeys(tasks) if (cause := stale.get(task))]
    certain = [each for each in causes if not isinstance(each, MayChange) and not each.same_result]
    return list({str(cause): cause for cause in certain}.values()) or [stale[plan]]


def _present_inputs(
    chroot: Chroot, inputs: Inputs, plan: Plan, causes: Sequence[Cause]
) -> tuple[dict[str, OwnInputs], dict[str, tuple[Cause, ...]]]:
    """The own inputs of an outdated plan's packages by the commits that are locked now.

    And the causes of what may be built for a reason that only the next plan tells, by CPV.
    """
    from tasks.flow import per_package
    from tasks.planner import forecast as forecasts
    from tasks.planner import keys
    from tasks.planner.closure import closure
    from tasks.snapshot.changes import version_key
    from tasks.snapshot.repository import has_commit

    commits = inputs[PLAN(chroot.name)].commits
    then = {
        name: replace(pinned, commit=commits.get(name, pinned.commit))
        for name, pinned in per_package.repositories(chroot, inputs).items()
    }
    moved = {
        name: locked
        for name, pinned in then.items()
        if (locked := _locked(chroot, name, pinned)) != pinned
    }
    here = {name: each for name, each in moved.items() if has_commit(each.path, each.commit)}
    tree = chroot.site.config.tree.name
    unseen = {
        (TREE() if name == tree else OVERLAY(name)).task: name
        for name in moved.keys() - here.keys()
    }
    known = {name: each for name, each in then.items() if has_commit(each.path, each.commit)}
    before = keys.look_up(plan, known)
    after = _moved_objects(plan, before, here)
    objects, gone = forecasts.fill_gaps(plan, before, after)
    environment = per_package.environment(chroot, inputs, plan)
    unsure = forecasts.merged(
        gone,
        forecasts.newer_versions(plan, dict(_added(then, here)), version_key),
        forecasts.affected(plan, causes, unseen),
    )
    return keys.own_inputs(plan, closure(plan), objects, environment), unsure


def _moved_objects(plan: Plan, before: Objects, moved: Mapping[str, PinnedRepository]) -> Objects:
    """The ids of a plan's files: of repositories that moved the present ones."""
    from tasks.planner import keys

    present = keys.look_up(plan, moved)
    ids = {key: each for key, each in before.ids.items() if key[0] not in moved}
    return keys.Objects({**ids, **present.ids}, {**before.commits, **present.commits})


def _added(
    then: Mapping[str, PinnedRepository], moved: Mapping[str, PinnedRepository]
) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """The versions that a repository has got since the plan, by CATEGORY/NAME."""
    from tasks.snapshot import changes

    for name, pinned in moved.items():
        with contextlib.suppress(BinmillError):  # without the old commit it is not known
            difference = changes.compare(pinned.path, then[name].commit, pinned.commit)
            yield name, {each.name: each.added for each in difference.packages if each.added}


def _locked(chroot: Chroot, name: str, pinned: PinnedRepository) -> PinnedRepository:
    """A repository at the commit that config.lock pins, which may not be here yet."""
    lock = lock_file.read_or_none(chroot.layout)
    if lock is None:
        return pinned
    overlay = lock.overlays.get(name)
    if name == chroot.site.config.tree.name:
        commit = lock.tree.commit
    else:
        commit = overlay.commit if overlay else pinned.commit
    return replace(pinned, commit=commit)
