"""The task graph: every task of a site, made from its config alone.

    snapshot ..> lock -> tree ------------------------+
                   |---> overlay:NAME ----------------|
                   '---> seed:NAME -> chroot:NAME ----+-> mount:NAME -> check:NAME -> binpkgs:NAME
                                       ^     |        |                                   |
                          chroot:BASE -'  etc:NAME ---'                  binpkgs:BASE ----'
                                                                                          v
                              client:NAME <- publish:NAME <- gate:NAME <- candidate:NAME -'
                   mirror <- tree, overlay:NAME, binpkgs:NAME

`-->` is a record that is read; `..>` runs only when it is needed. Creating the graph reads
nothing but config.toml: it works for anybody, anywhere, at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from doit.task import Task

from tasks import attended
from tasks import lock as lock_file
from tasks.engine.on_demand import WhenNamed
from tasks.engine.step import Below, Fact, Option, Step
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
    publish,
    snapshots,
    trees,
)
from tasks.records import Record
from tasks.site import Site
from tasks.system.http import public

GROUPS = {
    "overlay": "fetch overlays at their locked commits",
    "seed": "fetch, verify and extract stage tarballs",
    "chroot": "make chroots: bases from seeds, stacks from bases",
    "etc": "generate /etc/portage for each chroot",
    "mount": "prove that each mounted chroot can be entered",
    "check": "ask each chroot's Portage about the words of its config",
    "binpkgs": "build each chroot's package set with emerge",
    "candidate": "sign and index each package set, unseen by clients",
    "gate": "install each candidate offline, in a fresh chroot",
    "publish": "switch each binhost to what went through its gate",
    "client": "install from each published binhost in a fresh client",
    "members": "prove that each group gets what is its own, and nobody else does",
}


def build(site: Site) -> Iterator[Any]:
    """All tasks, in the order of the flow."""
    yield _snapshot(site)
    yield _lock(site)
    steps = [*_pinned(site), *_per_chroot(site), *_mirror(site)]
    named = [step for step in steps if step.when_named]
    for base, doc in GROUPS.items():
        inner = [step.task for step in named if step.task.startswith(f"{base}:")]
        yield {"basename": base, "name": None, "doc": doc, "task_dep": inner}
    for step in steps:
        yield step.as_named_task(site.layout) if step in named else step.as_task(site.layout)
    yield from attended.build(site, steps)


def defaults(site: Site) -> list[str]:
    """What a plain `doit` makes: everything through publishing, and a client's proof of it.

    A mirror is filled where config.toml has a table for it.
    """
    proofs = ["client", "members"] if site.config.access.groups else ["client"]
    made = [f"{proof}:{name}" for name in site.config.chroots for proof in proofs]
    return [*made, *(step.task for step in _mirror(site))]


def _snapshot(site: Site) -> Task:
    doc = "freeze the newest snapshot of the tree as a commit and date tag, and push it"
    day = Option("day", "date", "freeze that day's (YYYYMMDD), however old; the newest stays")
    step = Step("snapshot", doc, partial(snapshots.snapshot, site), options=(day,))
    return step.as_asked_task(site.layout, target=site.layout.record("snapshot"))


def _lock(site: Site) -> Task:
    doc = "resolve config.toml to config.lock: tree tag, overlay commits, seed digests"
    covers = Fact(partial(_covers, site), "config.lock does not pin all that config.toml asks for")
    tag = Option("tree", "tree", "pin that frozen day (YYYYMMDD), and leave all other pins alone")
    step = Step(
        "lock", doc, partial(trees.lock, site), fresh=(covers,), after=("snapshot",), options=(tag,)
    )
    return step.as_asked_task(site.layout, target=site.layout.lock)


def _covers(site: Site) -> bool:
    """Whether config.lock pins all that config.toml asks for.

    A damaged one is no gap to be filled: those who read it say what is wrong with it.
    """
    try:
        held = lock_file.load(site.layout)
    except BinmillError:
        return True
    return held is not None and not held.missing(site.config)


def _pinned(site: Site) -> Iterator[Step]:
    layout, locked = site.layout, (site.layout.lock,)
    tree = site.config.tree.name
    yield Step(
        "tree",
        f"have the locked commit of {tree} as files",
        partial(trees.tree, site),
        files=locked,
        results=lambda record: [layout.export(record["commit"])],
    )
    for name, overlay in site.config.overlays.items():
        yield Step(
            f"overlay:{name}",
            f"fetch {public(overlay.url)} at its locked commit",
            partial(trees.overlay, site, name),
            files=locked,
            inputs={"url": public(overlay.url), "branch": overlay.branch},
            results=lambda record: [layout.export(record["commit"])],
        )
    for name, seed in site.config.seeds.items():
        yield Step(
            f"seed:{name}",
            f"fetch, verify and extract {seed.title}",
            partial(chroots.seed, site, name),
            files=locked,
            inputs={"arch": seed.arch, "flavour": seed.flavour},
            results=lambda record: [layout.seed(record["sha512"])],
        )


def _per_chroot(site: Site) -> Iterator[Step]:
    for name in site.config.chroots:
        yield from _chroot(site, name)


def _chroot(site: Site, name: str) -> Iterator[Step]:
    config, own = site.config, site.config.chroots[name]
    state = site.layout.state
    under = f"chroot:{own.base}" if own.base else f"seed:{own.seed}"
    repos = ["tree", *(f"overlay:{o}" for o in config.effective(name).overlays)]
    entered = (*repos, f"chroot:{name}", f"etc:{name}")

    def generation(record: Record) -> list[Path]:
        return [publish.place(site, name, record)]

    def named(*keys: str) -> Callable[[Record], list[Path]]:
        return lambda record: binpkgs.results(site, record, *keys)

    yield Step(
        f"chroot:{name}",
        f"make chroot {name} from {under.replace(':', ' ')}",
        partial(chroots.chroot, site, name),
        needs=(under,),
        inputs={"lineage": config.lineage(name)},
        results=named("layers"),
        fresh=(Below(site.layout.touched(name), f"somebody has changed {name} by hand"),),
        owned=lambda record: [state / chroots.made_layer(record, name)],
    )
    extra = (Below(state.parent / own.portage_dir),) if own.portage_dir else ()
    yield Step(
        f"etc:{name}",
        f"generate /etc/portage of {name}",
        partial(etc.etc, site, name),
        inputs=_portage_inputs(site, name),
        results=named("path"),
        fresh=extra,
    )
    yield Step(
        f"mount:{name}",
        f"enter {name} and record its mounts and environment",
        partial(chroots.mount, site, name),
        needs=entered,
    )
    yield Step(
        f"check:{name}",
        f"ask the Portage of {name} about the words of its config",
        partial(etc.check, site, name),
        needs=(*entered, f"mount:{name}"),
        inputs={"packages": own.packages},
    )
    yield Step(
        f"binpkgs:{name}",
        f"build the package set of {name} with emerge",
        partial(binpkgs.binpkgs, site, name),
        needs=(*entered, f"check:{name}", *((f"binpkgs:{own.base}",) if own.base else ())),
        inputs={"packages": own.packages},
        results=lambda record: [binpkgs.set_folder(site, name, record)],
        owned=lambda record: [binpkgs.set_folder(site, name, record), site.layout.builds(name)],
        progress=binpkgs.progress,
    )
    below = (f"seed:{config.seed_of(name)}", *repos)
    sources = [f"{kind}:{each}" for each in config.lineage(name) for kind in ("binpkgs", "etc")]
    yield Step(
        f"candidate:{name}",
        f"sign and index the packages of {name}, unseen by clients",
        partial(candidate.candidate, site, name),
        needs=(*sources, *below),
        inputs={
            "access": config.access.model_dump(),
            **config.binhost.model_dump(include={"signing_key", "valid_days"}),
            "clients": bundles.inputs(site, name),
        },
        results=generation,
        owned=lambda _record: (),
    )
    yield Step(
        f"gate:{name}",
        f"install the candidate of {name} offline, from a fresh seed",
        partial(gate.gate, site, name),
        needs=(f"candidate:{name}", f"binpkgs:{name}", f"etc:{name}", *below),
        results=generation,
        owned=lambda _record: (),
    )
    yield Step(
        f"publish:{name}",
        f"switch clients of {name} to what went through the gate",
        partial(publish.publish, site, name),
        needs=(f"candidate:{name}", f"gate:{name}"),
        fresh=(Fact(partial(publish.all_valid, site, name), "a release manifest ages"),),
        results=lambda record: [*generation(record), site.layout.binhost(name) / "current"],
        owned=lambda _record: (),  # they are the clients' by now
        when_named=WhenNamed(
            lambda: not publish.held_by_rollback(site, name),
            "a rollback is held, and you asked to end that",
        ),
    )
    yield Step(
        f"client:{name}",
        f"install {name}'s packages in a fresh client from its binhost",
        partial(client.client, site, name),
        needs=(f"publish:{name}", f"etc:{name}", *below),
    )
    if config.access.groups:
        yield Step(
            f"members:{name}",
            f"install {name} over TLS as its group, and be refused as any other",
            partial(access_test.members, site, name),
            needs=(f"publish:{name}", f"etc:{name}", *below),
        )


def _mirror(site: Site) -> Iterator[Step]:
    if "mirror" in site.config.model_fields_set:
        repos = ("tree", *(f"overlay:{name}" for name in site.config.overlays))
        yield Step(
            "mirror",
            "let the mirror have the distfiles that builds have fetched",
            partial(mirror.fill, site),
            needs=(*repos, *(f"binpkgs:{name}" for name in site.config.chroots)),
        )


def _portage_inputs(site: Site, name: str) -> dict[str, Any]:
    return {
        "chroot": site.config.effective(name).model_dump(
            exclude={"packages", "seed", "base", "groups"}
        ),
        "mirrors": site.config.mirrors.model_dump(),
        "tree": site.config.tree.name,
    }
