"""Upstream updates: overlays and seeds beyond their pins. They are reported, never followed."""

from __future__ import annotations

from tasks import lock as lock_file
from tasks import updates
from tasks.domain import Gap
from tasks.errors import BinmillError
from tasks.lock import OverlayPin, SeedPin
from tasks.site import Site
from tasks.system.notes import Note, note


def look(site: Site) -> None:
    """Look where every pinned overlay's branch is, and for the newest build of every seed.

    A server that does not answer is a note: the pins do not depend on it.
    """
    from tasks.snapshot.repository import has_commit

    lock = lock_file.read_or_none(site.layout)
    if lock is None:
        return
    gaps = lock.gaps(site.config)  # there is no update of another address or flavour
    for name in site.config.overlays:
        repository = site.layout.overlay(name)
        if Gap("overlay", name) not in gaps and repository.is_dir():
            pin = lock.overlays[name]
            try:
                present = has_commit(repository, pin.commit)
            except BinmillError as error:
                note("update-unknown", cause=error.message)
                continue
            if present:
                of_overlay(site, name, with_password(site, name, pin))
    for name in site.config.seeds:
        if Gap("seed", name) not in gaps:
            of_seed(site, name, lock.seeds[name])


def with_password(site: Site, name: str, pin: OverlayPin) -> OverlayPin:
    """An overlay's pin with the URL of config.toml, which may hold a password."""
    return pin.model_copy(update={"url": site.config.overlays[name].url})


def of_overlay(site: Site, name: str, pin: OverlayPin) -> None:
    """Note where an overlay's branch is, where that is not the pinned commit."""
    from tasks.snapshot import overlays

    try:
        update = overlays.branch_update(site.layout.overlay(name), pin)
    except BinmillError as error:  # the pinned commit is here
        note("update-unknown", cause=error.message)
        return
    _keep(site, f"overlay:{name}", pin.commit, update)


def of_seed(site: Site, name: str, pin: SeedPin) -> None:
    """Note the newest build of a stage by its signed pointer, where that is not the pin."""
    from tasks.seed import download

    entry = site.config.seeds[name]
    if entry.file is not None or entry.build is not None:
        return
    folder = site.layout.upstream_update(
        f"seed:{name}"
    ).parent  # `doit lock` may use downloads/ now
    try:
        source = download.StageSource(entry, site.mirrors, folder)
        path = download.newest_build(source, site.role(str(entry.key)), pin.build).path
    except BinmillError as error:
        note("update-unknown", cause=error.message)
        return
    build = path.partition("/")[0]
    newer = Note("seed-newer", {"seed": name, "build": build, "pinned": pin.build})
    _keep(site, f"seed:{name}", pin.path, None if path == pin.path else newer)


def _keep(site: Site, task: str, pin: str, update: Note | None) -> None:
    updates.keep(site.layout, task, pin, update)
    if update is not None:
        note(update.code, **update.fields)
