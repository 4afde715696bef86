"""What upstream has by now and the lock does not pin: it is said, and never followed.

The answers are kept for `doit status`, which asks nobody.
"""

from __future__ import annotations

from tasks import lock as lock_file
from tasks import records
from tasks.errors import BinmillError
from tasks.lock import OverlayPin, SeedPin
from tasks.site import Site
from tasks.system.terminal import say


def ask(site: Site) -> None:
    """Where every pinned overlay's branch is, and the newest build of every seed that has one.

    A server that does not answer is a line: what is pinned was not asked of it.
    """
    from tasks.snapshot import overlays

    lock = lock_file.load(site.layout)
    if lock is None:
        return
    gaps = lock.missing(site.config)  # of another address or flavour there is no news
    for name in site.config.overlays:
        repository = site.layout.overlay(name)
        if f"overlay {name}" not in gaps and repository.is_dir():
            pin = lock.overlays[name]
            try:
                here = overlays.has(repository, pin.commit)
            except BinmillError as failed:
                say(f"  {failed.message}")
                continue
            if here:
                of_overlay(site, name, asked(site, name, pin))
    for name in site.config.seeds:
        if f"seed {name}" not in gaps:
            of_seed(site, name, lock.seeds[name])


def asked(site: Site, name: str, pin: OverlayPin) -> OverlayPin:
    """An overlay's pin with its address as it is to be asked, with a password if it has one."""
    return pin.model_copy(update={"url": site.config.overlays[name].url})


def of_overlay(site: Site, name: str, pin: OverlayPin) -> None:
    """Say where an overlay's branch is, when that is not where it is pinned."""
    from tasks.snapshot import overlays

    try:
        said = overlays.moved(site.layout.overlay(name), pin)
    except BinmillError as failed:  # what is pinned is here
        say(f"  {failed.message}")
        return
    _tell(site, f"overlay:{name}", pin.commit, said or "")


def of_seed(site: Site, name: str, pin: SeedPin) -> None:
    """Say which build of a stage is the newest by its signed pointer, when that is not the pin."""
    from tasks.seed import download as seeds

    entry = site.config.seeds[name]
    if entry.file is not None or entry.build is not None:
        return
    place = site.layout.news(f"seed:{name}").parent  # `doit lock` may be at it in downloads/
    try:
        path, _ = seeds.newest(entry, site.mirrors, site.role(str(entry.key)), place, pin.build)
    except BinmillError as failed:
        say(f"  {failed.message}")
        return
    build = path.partition("/")[0]
    said = "" if path == pin.path else f"{name}: {build} is there (pinned: {pin.build})"
    _tell(site, f"seed:{name}", pin.path, said)


def _tell(site: Site, task: str, pinned: str, said: str) -> None:
    records.tell(site.layout, task, pinned, said)
    if said:
        say(f"  {said}; `doit lock` follows")
