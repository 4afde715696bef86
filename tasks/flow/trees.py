"""lock, tree, overlay: pin days, branches and stages; export pinned commits as plain files."""

from __future__ import annotations

from tasks import lock as lock_file
from tasks.domain import Gap
from tasks.errors import BinmillError, Stale
from tasks.flow import upstream_updates
from tasks.lock import Lock, SeedPin, TreePin
from tasks.records import Inputs, LockRecord, OverlayRecord, TreeRecord
from tasks.site import Site
from tasks.system.notes import note


def resolve(site: Site, inputs: Inputs) -> LockRecord:
    """Write config.lock: everything resolved again when the task was named, else only its gaps.

    The option `tree` names a frozen day: then that is pinned, and all other pins stay.
    """
    from tasks.snapshot import overlays

    day = inputs.request.options.get("tree", "")
    previous = lock_file.read_or_none(site.layout)
    base = None if inputs.request.named and not day else previous
    gaps = base.gaps(site.config) if base else []
    lock = Lock(
        tree=base.tree if base and not day else _tree_pin(site, day),
        overlays={
            name: base.overlays[name]
            if base and Gap("overlay", name) not in gaps
            else overlays.branch_head(site.layout.overlay(name), overlay)
            for name, overlay in site.config.overlays.items()
        },
        seeds={
            name: base.seeds[name]
            if base and Gap("seed", name) not in gaps
            else _seed_pin(site, name, previous)
            for name in site.config.seeds
        },
    )
    if lock == previous:
        note("lock-unchanged", name=site.layout.lock.name, tag=lock.tree.tag)
    else:
        lock_file.write(site.layout, lock)
        note("lock-written", path=site.layout.lock, tag=lock.tree.tag, commit=lock.tree.commit)
        if previous:
            _note_moved_pins(previous, lock)
    return LockRecord()


def _tree_pin(site: Site, tag: str) -> TreePin:
    """The pin of a frozen day, or of the newest where `tag` is empty."""
    from tasks.snapshot import frozen_days

    tags = frozen_days.tags(site.layout.tree)
    if not tags:
        raise Stale("nothing-frozen")
    day = frozen_days.read(site.layout.tree, frozen_days.require(tag, tags) if tag else tags[-1])
    assert day is not None  # noqa: S101 - it is one of the tags
    return TreePin(tag=day.tag, commit=day.commit)


def _seed_pin(site: Site, name: str, previous: Lock | None) -> SeedPin:
    """The pin of a seed: of a mirror's build, never older than the previous one, or of a file."""
    from tasks.seed import download

    entry = site.config.seeds[name]
    if entry.file is not None:
        return SeedPin(path=entry.file, sha512=str(entry.sha512))
    pin = previous.seeds.get(name) if previous else None
    oldest = pin.build if pin and pin.serves(entry) else ""
    source = download.StageSource(entry, site.mirrors, site.layout.downloads)
    return download.resolve(source, site.role(str(entry.key)), oldest)


def _note_moved_pins(old: Lock, new: Lock) -> None:
    """Note every overlay and seed that the new lock pins elsewhere."""
    for name, overlay in new.overlays.items():
        before = old.overlays.get(name)
        if before and before.commit != overlay.commit:
            note(
                "overlay-pin-moved",
                overlay=name,
                old=before.commit,
                new=overlay.commit,
                branch=overlay.branch,
            )
    for name, seed in new.seeds.items():
        pin = old.seeds.get(name)
        if pin and pin.sha512 != seed.sha512:
            note("seed-pin-moved", seed=name, old=pin.path, new=seed.path)


def export_tree(site: Site, inputs: Inputs) -> TreeRecord:
    """Export the locked commit of the tree, which is here, on the remote or on the mirrors."""
    from tasks.snapshot import export, frozen_days, remote
    from tasks.snapshot.repository import has_commit

    pin = inputs.lock().tree
    layout = site.layout
    if not has_commit(layout.tree, pin.commit) and site.config.tree.remote:
        try:
            remote.fetch_day(layout.tree, site.config.tree.remote, pin.tag)
        except BinmillError as error:  # the mirrors may have that day, and give the same commit
            note("remote-not-read", cause=error.message)
    if not has_commit(layout.tree, pin.commit):
        _freeze_again(site, pin)
    day = frozen_days.read(layout.tree, pin.tag)
    if day is None or day.commit != pin.commit:
        raise BinmillError("tag-not-locked-commit", tag=pin.tag, commit=pin.commit)
    export.export_commit(layout.tree, pin.commit, layout.export(pin.commit), layout.trash)
    return TreeRecord(pin.tag, pin.commit, day.timestamp)


def _freeze_again(site: Site, pin: TreePin) -> None:
    """Freeze the day of a lock from another machine: it becomes the same commit here."""
    from tasks.flow.snapshots import day_of, freeze_day

    freeze_day(site, day_of(pin.tag, site.layout.lock.name))


def export_overlay(site: Site, name: str, inputs: Inputs) -> OverlayRecord:
    """Export an overlay's pinned commit; note where its branch is by now."""
    from tasks.snapshot import export, overlays

    pin = lock_file.pin_of(inputs.lock().overlays, "overlay", name)
    pin = upstream_updates.with_password(site, name, pin)
    repository = site.layout.overlay(name)
    overlays.fetch_pinned(repository, pin)
    upstream_updates.of_overlay(site, name, pin)
    export.export_commit(repository, pin.commit, site.layout.export(pin.commit), site.layout.trash)
    return OverlayRecord(pin.commit)
