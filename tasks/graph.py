"""The task graph: every task of a site, made from its config alone.

docs/architecture.md has a picture of it, which a test compares with the graph. Creating the graph
reads only config.toml, so it works for every user and without a state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from tasks import lock as lock_file
from tasks.causes import (
    Cause,
    LockLacks,
    LockMissing,
    ManifestExpires,
    ModifiedByHand,
    RollbackEnds,
)
from tasks.chroot.sandboxes import own_keys, seed_keys
from tasks.engine.checks import Fact, FilesUnchanged
from tasks.engine.on_demand import UnlessRequested, WhenNamed
from tasks.engine.step import Option, Step, as_task
from tasks.errors import BinmillError
from tasks.flow import (
    access_test,
    binpkgs,
    bundles,
    candidate,
    chroots,
    client,
    etc,
    gate,
    mirror,
    pins,
    plan,
    publish,
    snapshots,
    trees,
)
from tasks.portage import source_date
from tasks.records import (
    BINPKGS,
    CANDIDATE,
    CHECK,
    CHROOT,
    CLIENT,
    ETC,
    GATE,
    LOCK,
    MEMBERS,
    MIRROR,
    MOUNT,
    OVERLAY,
    PLAN,
    PUBLISH,
    SEED,
    SNAPSHOT,
    TREE,
    ChrootRecord,
    Key,
)
from tasks.site import Chroot, Site
from tasks.text import without_password

GROUPS = {
    "overlay": "check out overlays at their locked commits",
    "seed": "download, verify and extract stage tarballs",
    "chroot": "make chroots: bases from seeds, stacks from bases",
    "etc": "generate /etc/portage for each chroot",
    "mount": "prove that each mounted chroot can be entered",
    "check": "ask each chroot's Portage about the settings in config.toml",
    "plan": "resolve the packages of each chroot with its own Portage",
    "binpkgs": "build each chroot's packages, and collect them as a set",
    "candidate": "sign and index each package set; no client sees it yet",
    "gate": "install each candidate offline, or upgrade the last one to it",
    "publish": "switch each binhost to the candidate that passed its gate",
    "client": "install from each published binhost in a client, fresh or upgraded",
    "members": "prove that each group gets its own packages, and no other client does",
}
_PROOFS = (CLIENT, MEMBERS)
_KEEP_FAILED = Option(
    "keep_failed", "keep-failed", "keep the buildroots of failed packages, to enter them", flag=True
)
_FRESH = Option("fresh", "fresh", "install in a fresh chroot, upgrade nothing", flag=True)


def build(site: Site) -> Iterator[Any]:
    """All tasks for doit, in the order of the flow."""
    everything = steps(site)
    for kind, doc in GROUPS.items():
        inner = [each.task for each in everything if each.key.kind.name == kind]
        yield {"basename": kind, "name": None, "doc": doc, "task_dep": inner}
    for step in everything:
        yield as_task(step, site.layout)


def defaults(site: Site) -> list[str]:
    """The tasks of a plain `doit`: everything through publishing, a client's proof, the mirror."""
    kinds = [kind for kind in _PROOFS if kind is CLIENT or site.config.access.groups]
    proofs = [kind(chroot.name).task for chroot in site.chroots for kind in kinds]
    return [*proofs, *(step.task for step in _mirror(site))]


def artifacts(site: Site) -> dict[str, Step[Any]]:
    """All artifacts of a site by the name of their task."""
    return {step.task: step for step in steps(site)}


def steps(site: Site) -> list[Step[Any]]:
    """All artifacts of a site, in the order of the flow."""
    all_steps: list[Step[Any]] = [_snapshot(site), _lock(site), *_source_steps(site)]
    for chroot in site.chroots:
        all_steps += [*_chroot_steps(chroot), *_build_steps(chroot), *_publish_steps(chroot)]
    return [*all_steps, *_mirror(site)]


def _snapshot(site: Site) -> Step[Any]:
    return Step(
        SNAPSHOT(),
        "freeze the newest snapshot of the tree as a commit and date tag, and push it",
        partial(snapshots.freeze_newest, site),
        on_demand=True,
        options=(
            Option("day", "date", "freeze that day's (YYYYMMDD), however old; the newest stays"),
        ),
    )


def _lock(site: Site) -> Step[Any]:
    return Step(
        LOCK(),
        "resolve config.toml to config.lock: tree tag, overlay commits, seed digests",
        partial(trees.resolve, site),
        checks=(
            Fact(lambda: _lock_cause(site) is None, lambda: _lock_cause(site) or LockMissing()),
        ),
        after=(SNAPSHOT().task,),
        on_demand=True,
        options=(Option("tree", "tree", "pin that frozen day (YYYYMMDD); all other pins stay"),),
        target=site.layout.lock,
    )


def _lock_cause(site: Site) -> Cause | None:
    """The reason to write config.lock; None for a damaged lock, which its readers report."""
    try:
        lock = lock_file.read_or_none(site.layout)
    except BinmillError:
        return None
    if lock is None:
        return LockMissing()
    gaps = lock.gaps(site.config)
    return LockLacks(gaps) if gaps else None


def _source_steps(site: Site) -> Iterator[Step[Any]]:
    layout, files = site.layout, (site.layout.lock,)
    yield Step(
        TREE(),
        f"check out the locked commit of {site.config.tree.name}",
        partial(trees.export_tree, site),
        files=files,
        files_cause=partial(pins.cause, layout, TREE()),
        results=lambda record: [layout.export(record.commit)],
    )
    for name, overlay in site.config.overlays.items():
        yield Step(
            OVERLAY(name),
            f"check out {without_password(overlay.url)} at its locked commit",
            partial(trees.export_overlay, site, name),
            files=files,
            files_cause=partial(pins.cause, layout, OVERLAY(name)),
            settings={"url": without_password(overlay.url), "branch": overlay.branch},
            results=lambda record: [layout.export(record.commit)],
        )
    for name, seed in site.config.seeds.items():
        yield Step(
            SEED(name),
            f"download, verify and extract {seed.title}",
            partial(chroots.extract_seed, site, name),
            files=files,
            files_cause=partial(pins.cause, layout, SEED(name)),
            settings={"arch": seed.arch, "flavour": seed.flavour},
            results=lambda record: [layout.seed(record.sha512)],
        )


def _chroot_steps(chroot: Chroot) -> Iterator[Step[Any]]:
    """From a seed or a base to a chroot that its own Portage has accepted."""
    name, state = chroot.name, chroot.layout.state
    below: Key[ChrootRecord] | Key[Any] = (
        CHROOT(chroot.base.name) if chroot.base else SEED(chroot.seed)
    )
    own = own_keys(chroot)
    yield Step(
        CHROOT(name),
        f"make chroot {name} from {below.kind.name} {below.name}",
        partial(chroots.make_chroot, chroot),
        reads=(below,),
        settings={"lineage": [each.name for each in chroot.lineage]},
        results=lambda record: [state / layer for layer in record.layers],
        checks=(FilesUnchanged(chroot.layout.manual_changes(name), cause=ModifiedByHand(name)),),
        owned=lambda record: [state / record.own_layer(name)],
        chroot=name,
    )
    portage_dirs = chroot.portage_dirs
    yield Step(
        ETC(name),
        f"generate /etc/portage of {name}",
        partial(etc.generate, chroot),
        settings=_portage_settings(chroot),
        files=(source_date.PROGRAM,),  # part of what it generates
        results=lambda record: [state / record.path],
        checks=(FilesUnchanged(*portage_dirs),) if portage_dirs else (),
        chroot=name,
    )
    yield Step(
        MOUNT(name),
        f"enter {name} and record its mounts and environment",
        partial(chroots.enter_once, chroot),
        reads=own,
        chroot=name,
    )
    yield Step(
        CHECK(name),
        f"ask the Portage of {name} about its settings in config.toml",
        partial(etc.check_settings, chroot),
        reads=(*own, MOUNT(name)),
        settings={"packages": chroot.own.packages},
        chroot=name,
    )
    yield Step(
        PLAN(name),
        f"resolve the packages of {name}: the plan of what to build",
        partial(plan.resolve_packages, chroot),
        reads=(*own, CHECK(name)),
        settings={"packages": chroot.own.packages},
        results=lambda record: [state / record.path],
        chroot=name,
    )


def _build_steps(chroot: Chroot) -> Iterator[Step[Any]]:
    """From a chroot to a signed candidate that has passed the gate."""
    name, config = chroot.name, chroot.site.config
    base = (BINPKGS(chroot.base.name),) if chroot.base else ()
    by_package = config.build.driver == "per-package"
    yield Step(
        BINPKGS(name),
        f"build the packages of {name}, and collect them as a set",
        partial(binpkgs.build_set, chroot),
        reads=_once(*own_keys(chroot), *((PLAN(name),) if by_package else (CHECK(name), *base))),
        may_read=(SEED(chroot.seed),),  # restricted files are fetched there
        settings={
            "packages": chroot.own.packages,
            **config.build.model_dump(include={"driver", "extra_build_deps"}),
            "strict": by_package and config.build.strict,
        },
        after=(
            *(() if by_package else (PLAN(name).task,)),  # refuses what cannot be built unattended
            *(each.task for each in base),  # most of its packages are the same
        ),
        options=(_KEEP_FAILED,) if by_package else (),
        remains=(chroot.layout.failed_buildroots(name),),
        results=lambda record: [chroot.collected(record)],
        owned=lambda record: [chroot.collected(record), chroot.layout.builds(name)],
        progress=binpkgs.progress,
        chroot=name,
    )
    sources = [kind(each.name) for each in chroot.lineage for kind in (BINPKGS, ETC)]
    yield Step(
        CANDIDATE(name),
        f"sign and index the packages of {name}; no client sees them yet",
        partial(candidate.prepare, chroot),
        reads=(*sources, *seed_keys(chroot)),
        settings={
            "access": config.access.model_dump(),
            **config.binhost.model_dump(include={"signing_key", "valid_days"}),
            "clients": asdict(bundles.settings(chroot)),
        },
        results=lambda record: [publish.place(chroot, record)],
        owned=lambda _record: (),
        chroot=name,
    )
    yield Step(
        GATE(name),
        f"install the candidate of {name} offline, or upgrade the last one to it",
        partial(gate.check_candidate, chroot),
        reads=(CANDIDATE(name), BINPKGS(name), ETC(name), *seed_keys(chroot)),
        options=(_FRESH,),
        checks=(UnlessRequested(_FRESH.name),),
        remains=(chroot.layout.install_root("gate", name),),
        results=lambda record: [publish.place(chroot, record)],
        owned=lambda _record: (),
        chroot=name,
    )


def _publish_steps(chroot: Chroot) -> Iterator[Step[Any]]:
    """The steps that switch clients, and test the published binhost."""
    name, seeds = chroot.name, seed_keys(chroot)
    yield Step(
        PUBLISH(name),
        f"switch clients of {name} to the candidate that passed the gate",
        partial(publish.publish_candidate, chroot),
        reads=(CANDIDATE(name), GATE(name), BINPKGS(name), *seeds),
        checks=(Fact(partial(publish.all_valid, chroot), ManifestExpires),),
        results=lambda record: [publish.place(chroot, record), chroot.binhost / "current"],
        owned=lambda _record: (),  # clients may be reading them
        when_named=WhenNamed(lambda: not publish.rollback_ends(chroot), RollbackEnds),
        chroot=name,
    )
    yield Step(
        CLIENT(name),
        f"install {name}'s packages from its binhost in a client, fresh or upgraded",
        partial(client.install_published, chroot),
        reads=(PUBLISH(name), ETC(name), *seeds),
        options=(_FRESH,),
        checks=(UnlessRequested(_FRESH.name),),
        remains=(chroot.layout.install_root("client", name),),
        chroot=name,
    )
    if chroot.site.config.access.groups:
        yield Step(
            MEMBERS(name),
            f"install {name} over TLS as its group, and be refused as any other",
            partial(access_test.prove_access, chroot),
            reads=(PUBLISH(name), ETC(name), *seeds),
            options=(_FRESH,),
            checks=(UnlessRequested(_FRESH.name),),
            remains=(chroot.layout.install_root("members", name),),
            chroot=name,
        )


def _mirror(site: Site) -> Iterator[Step[Any]]:
    if "mirror" in site.config.model_fields_set:
        yield Step(
            MIRROR(),
            "add distfiles fetched by builds to the mirror",
            partial(mirror.fill, site),
            reads=(*mirror.tree_keys(site), *(BINPKGS(each.name) for each in site.chroots)),
        )


def _once(*keys: Key[Any]) -> tuple[Key[Any], ...]:
    return tuple(dict.fromkeys(keys))


def _portage_settings(chroot: Chroot) -> dict[str, Any]:
    config = chroot.site.config
    inherited = [each.own.portage_dir for each in chroot.lineage[:-1] if each.own.portage_dir]
    return {
        "chroot": chroot.config.model_dump(exclude={"packages", "seed", "base", "groups"}),
        "mirrors": config.mirrors.model_dump(),
        "tree": config.tree.name,
        **({"portage_dir of bases": inherited} if inherited else {}),
    }
