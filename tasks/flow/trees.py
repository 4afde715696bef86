"""lock, tree, overlay: from frozen days and branches to pinned repositories as plain files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tasks import lock as lock_file
from tasks.errors import BinmillError, Stale
from tasks.flow import upstream_updates
from tasks.lock import Lock, SeedPin, TreePin
from tasks.records import Inputs, LockRecord, OverlayRecord, TreeRecord
from tasks.site import Site
from tasks.system.terminal import say


def resolve(site: Site, inputs: Inputs) -> LockRecord:
    """Write config.lock: everything resolved again when the task was named, else only its gaps.

    The option `tree` names a frozen day: then that is pinned, and all other pins stay.
    """
    from tasks.snapshot import overlays

    tree = inputs.request.options.get("tree", "")
    held = lock_file.load(site.layout)
    gaps = held.missing(site.config) if held else []
    old = None if inputs.request.named and not tree else held

    def keep(kind: str, name: str, resolve: Callable[[], Any]) -> Any:
        pins = getattr(old, f"{kind}s") if old else {}
        return pins[name] if name in pins and f"{kind} {name}" not in gaps else resolve()

    made = Lock(
        tree=old.tree if old and not tree else _frozen(site, tree),
        overlays={
            name: keep(
                "overlay",
                name,
                lambda n=name, o=entry: overlays.head(  # type: ignore[misc]
                    site.layout.overlay(n), o
                ),
            )
            for name, entry in site.config.overlays.items()
        },
        seeds={
            name: keep("seed", name, lambda n=name: _stage(site, n, held))  # type: ignore[misc]
            for name in site.config.seeds
        },
    )
    if made == held:
        say(f"  {site.layout.lock.name} is unchanged (tree {made.tree.tag})")
    else:
        lock_file.write(site.layout, made)
        say(f"  wrote {site.layout.lock}: tree {made.tree.tag} at {made.tree.commit[:12]}")
        for line in _moves(held, made):
            say(f"  {line}")
    return LockRecord()


def _frozen(site: Site, tag: str) -> TreePin:
    """The frozen day of that tag, or the newest."""
    from tasks.snapshot import freeze

    days = freeze.tags(site.layout.tree)
    if not days:
        raise Stale("nothing-frozen")
    found = freeze.read(site.layout.tree, freeze.known(tag, days) if tag else days[-1])
    assert found is not None  # noqa: S101 - it is one of the tags
    return TreePin(tag=found.tag, commit=found.commit)


def _stage(site: Site, name: str, held: Lock | None) -> SeedPin:
    """A seed's pin: of a mirror's build, never an older one than before, or of one's own file."""
    from tasks.seed import download

    entry = site.config.seeds[name]
    if entry.file is not None:
        return SeedPin(path=entry.file, sha512=str(entry.sha512))
    pin = held.seeds.get(name) if held else None
    before = pin.build if pin and pin.serves(entry) else ""
    source = download.StageSource(entry, site.mirrors, site.layout.downloads)
    return download.resolve(source, site.role(str(entry.key)), before)


def _moves(old: Lock | None, new: Lock) -> Iterator[str]:
    """What a new lock pins otherwise than the old one, beside the tree; a line for each."""
    if old is None:
        return
    for name, overlay in new.overlays.items():
        if (was := old.overlays.get(name)) and was.commit != overlay.commit:
            yield f"overlay {name}: {was.commit[:7]} -> {overlay.commit[:7]} ({overlay.branch})"
    for name, seed in new.seeds.items():
        if (before := old.seeds.get(name)) and before.sha512 != seed.sha512:
            yield f"seed {name}: {before.path} -> {seed.path}"


def export_tree(site: Site, inputs: Inputs) -> TreeRecord:
    """Check out the locked commit of the tree: from here, the remote, or the mirrors."""
    from tasks.snapshot import export, freeze, overlays, remote

    pin = inputs.lock().tree
    layout = site.layout
    if not overlays.has(layout.tree, pin.commit) and site.config.tree.remote:
        try:
            remote.fetch(layout.tree, site.config.tree.remote, pin.tag)
        except BinmillError as failed:  # the mirrors may have that day, and give the same commit
            say(f"  {failed.message}")
    if not overlays.has(layout.tree, pin.commit):
        _freeze_again(site, pin)
    frozen = freeze.read(layout.tree, pin.tag)
    if frozen is None or frozen.commit != pin.commit:
        raise BinmillError(
            f"the tree repository's tag {pin.tag} is not the locked commit {pin.commit[:12]}",
            "was config.lock edited by hand? take it back, or run `doit lock`",
        )
    export.export(layout.tree, pin.commit, layout.export(pin.commit), layout.trash)
    return TreeRecord(pin.tag, pin.commit, frozen.timestamp)


def _freeze_again(site: Site, pin: TreePin) -> None:
    """A lock from elsewhere: the same day, frozen here, is the same commit."""
    from tasks.flow.snapshots import day_of, frozen_day

    frozen_day(site, day_of(pin.tag, site.layout.lock.name))


def export_overlay(site: Site, name: str, inputs: Inputs) -> OverlayRecord:
    """Check out an overlay's pinned commit; say where its branch is by now."""
    from tasks.snapshot import export, overlays

    pin = lock_file.pinned(inputs.lock().overlays, "overlay", name)
    pin = upstream_updates.with_password(site, name, pin)
    repository = site.layout.overlay(name)
    overlays.obtain(repository, pin)
    upstream_updates.of_overlay(site, name, pin)
    export.export(repository, pin.commit, site.layout.export(pin.commit), site.layout.trash)
    return OverlayRecord(pin.commit)
