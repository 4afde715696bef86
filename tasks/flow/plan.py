"""plan: the packages of a chroot, as its own Portage resolves them."""

from __future__ import annotations

from tasks.records import CHROOT, ChrootRecord, Inputs, PlanRecord
from tasks.site import Chroot, identity
from tasks.system.files import private_folder
from tasks.system.notes import note


def resolve_packages(chroot: Chroot, inputs: Inputs) -> PlanRecord:
    """Resolve a chroot's packages, without network, and keep the plan under its digest."""
    from tasks.chroot import sandboxes
    from tasks.planner import plan as plans
    from tasks.planner import resolver

    seed = seed_identity(inputs[CHROOT(chroot.name)])
    with chroot.workspace("plan") as space:
        inside = sandboxes.own(chroot, inputs, space)
        plan = resolver.resolve(inside, chroot.own.packages, seed)
    resolver.check_buildable(plan, chroot.name)
    digest = plans.digest(plan)
    path = chroot.layout.plan(chroot.name, digest)
    private_folder(path.parent.parent)  # settings may have a password
    plans.write(plan, path)
    note("plan-resolved", chroot=chroot.name, packages=len(plan.packages))
    for cycle in plan.cycles:
        note("plan-cycle", chroot=chroot.name, packages=list(cycle))
    return PlanRecord(
        digest,
        len(plan.packages),
        str(path.relative_to(chroot.layout.state)),
        sandboxes.repositories(chroot, inputs),
    )


def seed_identity(record: ChrootRecord) -> str:
    """An identity of the files that a chroot starts from: its seed, and manual changes.

    The layers between say only how the chroot is called.
    """
    return identity(list(record.layers if record.modified else record.layers[-1:]))
