"""snapshot, lock, tree, overlay: from the mirrors to pinned repositories as plain files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks import lock as lock_file
from tasks.errors import BinmillError, Stale
from tasks.lock import Lock, TreePin
from tasks.records import Record
from tasks.site import Site
from tasks.system.terminal import say


def snapshot(site: Site, *, asked: bool) -> Record:  # noqa: ARG001 - the engine says it
    """Freeze the newest snapshot, if there is one newer than what is frozen; push it."""
    from tasks.snapshot import freeze, mirror

    tree, layout = site.config.tree, site.layout
    held = freeze.newest(layout.tree)
    # a snapshot for day D is made on D+1
    last = datetime.now(UTC).date() - timedelta(days=1)
    days = [
        day for day in mirror.days_back(last, tree.lookback_days)
        if held is None or f"{day:%Y%m%d}" > held.tag
    ]  # fmt: skip
    with site.scratch("snapshot") as scratch:
        day = mirror.newest_day(site.mirrors, tree.name, iter(days), scratch)
        if day is not None:
            _follow(site)
            with mirror.fetched(site.mirrors, tree.name, day, site.role(tree.key), scratch) as got:
                frozen = freeze.freeze(layout.tree, got, day, tree.name)
            say(f"  frozen {tree.name} {frozen.tag} as {frozen.commit[:12]} (tag {frozen.tag})")
        elif held is not None:
            frozen = held
            count = len(site.mirrors)
            asked_of = f"{count} mirror{'s' * (count > 1)} asked" if days else "it is yesterday's"
            say(f"  no newer snapshot than {held.tag} ({asked_of}); nothing was changed")
        else:
            raise BinmillError(
                f"no mirror has a snapshot of the last {tree.lookback_days} days",
                "check [mirrors], or raise [tree] lookback_days in config.toml",
            )
    _push(site, frozen)
    return {"tag": frozen.tag, "commit": frozen.commit, "timestamp": frozen.timestamp,
            "sha512": frozen.sha512, "signer": frozen.signer}  # fmt: skip


def _follow(site: Site) -> None:
    from tasks.snapshot import remote

    where = site.config.tree.remote
    if where:
        try:
            remote.follow(site.layout.tree, where)
        except BinmillError as failed:  # freezing needs no remote; the push will say it again
            say(f"  {failed.message}")


def _push(site: Site, frozen: Any) -> None:
    from tasks.snapshot import remote

    where = site.config.tree.remote
    if where and remote.push(site.layout.tree, where, frozen):
        say(f"  pushed {frozen.tag} to {where}")


def lock(site: Site, *, asked: bool) -> Record:
    """Write config.lock: everything anew when it was asked for, else what it does not pin yet."""
    from tasks.chroot import seed as seeds
    from tasks.snapshot import freeze, overlays

    held = lock_file.load(site.layout)
    gaps = held.missing(site.config) if held else []
    old = None if asked else held

    def keep(kind: str, name: str, resolve: Callable[[], Any]) -> Any:
        pins = getattr(old, f"{kind}s") if old else {}
        return pins[name] if name in pins and f"{kind} {name}" not in gaps else resolve()

    newest = freeze.newest(site.layout.tree)
    if old is None and newest is None:
        raise Stale("nothing is frozen yet", "run `doit snapshot lock`")
    tree = old.tree if old else TreePin(tag=newest.tag, commit=newest.commit)  # type: ignore[union-attr]
    with site.scratch("lock") as scratch:
        made = Lock(
            tree=tree,
            overlays={
                name: keep("overlay", name, lambda n=name, o=entry: overlays.head(  # type: ignore[misc]
                    site.layout.overlay(n), o))
                for name, entry in site.config.overlays.items()
            },
            seeds={
                name: keep("seed", name, lambda e=entry: seeds.resolve(  # type: ignore[misc]
                    e, site.mirrors, site.role(e.key), scratch))
                for name, entry in site.config.seeds.items()
            },
        )  # fmt: skip
    if made == held:
        say(f"  {site.layout.lock.name} is unchanged (tree {made.tree.tag})")
    else:
        lock_file.write(site.layout, made)
        say(f"  wrote {site.layout.lock}: tree {made.tree.tag} at {made.tree.commit[:12]}")
    return made.model_dump()


def tree(site: Site) -> Record:
    """Have the locked commit of the tree as files: from here, the remote, or the mirrors."""
    from tasks.snapshot import export, freeze, overlays, remote

    pin = lock_file.read(site.layout).tree
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
    return {"tag": pin.tag, "commit": pin.commit, "timestamp": frozen.timestamp}


def _freeze_again(site: Site, pin: TreePin) -> None:
    """A lock from elsewhere: the same day, frozen here, is the same commit."""
    from tasks.snapshot import freeze, mirror

    day = datetime.strptime(pin.tag, "%Y%m%d").replace(tzinfo=UTC).date()
    name = site.config.tree.name
    with (
        site.scratch("tree") as scratch,
        mirror.fetched(site.mirrors, name, day, site.role(site.config.tree.key), scratch) as got,
    ):
        freeze.freeze(site.layout.tree, got, day, name)


def overlay(site: Site, name: str) -> Record:
    """Have an overlay's pinned commit as files."""
    from tasks.snapshot import export, overlays

    pin = lock_file.pinned(lock_file.read(site.layout).overlays, "overlay", name)
    repository = site.layout.overlay(name)
    overlays.obtain(repository, pin)
    export.export(repository, pin.commit, site.layout.export(pin.commit), site.layout.trash)
    return {"commit": pin.commit}
