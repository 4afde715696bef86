"""seed, chroot, mount: from a stage tarball to a room to work in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks import lock as lock_file
from tasks import records
from tasks.errors import BinmillError, Busy
from tasks.lock import SeedPin
from tasks.records import Record
from tasks.site import Site, identity
from tasks.system.command import require_root
from tasks.system.files import closed_folder, locked, remove_tree
from tasks.system.terminal import say


def seed(site: Site, name: str) -> Record:
    """Have a pinned stage tarball extracted, once per digest."""
    pin: SeedPin = lock_file.pinned(lock_file.read(site.layout).seeds, "seed", name)
    target = site.layout.seed(pin.sha512)
    if not target.is_dir():
        require_root("unpack a stage with its owners and devices")
        closed_folder(target.parent)
        # two seeds may be the same stage, and be made at once
        with locked(site.layout.unpacking(target.name), f"the stage {pin.path}", wait=True):
            if not target.is_dir():
                _extract(site, name, pin, target)
    return {"path": pin.path, "sha512": pin.sha512}


def _extract(site: Site, name: str, pin: SeedPin, target: Path) -> None:
    from tasks.seed import download as seeds
    from tasks.seed.extract import extract

    entry = site.config.seeds[name]
    _sweep_killed(site, target)
    if entry.file is not None:
        opened = seeds.own(entry, pin, site.layout.site / entry.file)
    else:
        tarball = site.layout.downloads / Path(pin.path).name
        opened = seeds.obtained(entry, pin, site.mirrors, tarball)
    with opened as archive:
        made = extract(archive, target, site.layout.trash)
    say(f"  extracted {archive.name}: {made.entries} entries, {made.size / 1e6:.0f} MB")


def _sweep_killed(site: Site, target: Path) -> None:
    """Delete what killed runs left of other stages; this one's is deleted when it is made."""
    for left in target.parent.glob(".*.tmp"):
        with (
            contextlib.suppress(Busy),
            locked(site.layout.unpacking(left.name[1:-4]), f"the stage in {left}"),
        ):
            remove_tree(left, site.layout.trash)


def chroot(site: Site, name: str) -> Record:
    """Commit a chroot's own layer; its record lists all layers, topmost first.

    What was done in it by hand is the topmost one, as long as the others are what it was done to;
    then the record has `touched`: the chroots of its lineage of which that is so.
    """
    from tasks.chroot import layers, manual_changes

    base = site.config.chroots[name].base
    touched: list[str] = []
    if base:
        under = records.read(site.layout, f"chroot:{base}")
        below, touched = under["layers"], under.get("touched", [])
    else:
        digest = records.read(site.layout, f"seed:{site.config.seed_of(name)}")["sha512"]
        below = [_relative(site, site.layout.seed(digest))]
    files = layers.contents(name, site.config.lineage(name))
    target = site.layout.layer(name, identity([below, files]))
    require_root("make a chroot's layer")
    closed_folder(target.parent.parent)
    layers.commit(files, _paths(site, below), target, site.layout.trash)
    made = [_relative(site, target), *below]
    mark = manual_changes.marked(site.layout, name)
    if mark and list(mark.over) == made:
        say(f"  {name} is touched by hand; as it was made: doit enter {name} --reset")
        made, touched = [mark.layer, *made], [*touched, name]
    elif mark:
        manual_changes.forget(site.layout, name)
        say(f"  {name} is made anew, without what was done in it by hand")
    return {"layers": made, **({"touched": touched} if touched else {})}


def without_hand(site: Site, name: str) -> list[str]:
    """The layers of a chroot, topmost first, without what was done in it by hand."""
    record = records.read(site.layout, f"chroot:{name}")
    return list(record["layers"])[name in record.get("touched", ()) :]


def made_layer(record: Record, name: str) -> str:
    """The layer that a chroot's own task has made, of a record of it."""
    return str(record["layers"][name in record.get("touched", ())])


def mount(site: Site, name: str) -> Record:
    """Prove that the mounted chroot can be entered: mounts and environment as seen inside."""
    from tasks.chroot import sandbox_plan
    from tasks.system import sandbox

    with workspace(site, f"mount-{name}") as space:
        inside = plan(site, name, space)
        mounts = sandbox.run(inside, ["cat", "/proc/self/mountinfo"]).stdout
        environment = sandbox.run(inside, ["env", "-0"]).stdout
        profile = sandbox.run(inside, ["readlink", "-e", "/etc/portage/make.profile"], check=False)
    if profile.returncode != 0:
        raise BinmillError(
            f"[chroots.{name}] profile: {site.config.effective(name).profile!r} is not in the tree",
            "see profiles/profiles.desc of the tree, then set `profile` in config.toml",
        )
    table = sandbox_plan.mount_table(mounts)
    say(f"  entered {name}: {len(table)} mounts")
    return {"mounts": table, "environment": sorted(filter(None, environment.split("\0")))}


def plan(site: Site, name: str, space: Path, **more: Any) -> Any:
    """The sandbox of chroot `name` over a workspace; `more` goes to room.plan."""
    from tasks.chroot import sandbox_plan

    layout = site.layout
    commits = {site.config.tree.name: records.read(layout, "tree")["commit"]}
    for other in site.config.effective(name).overlays:
        commits[other] = records.read(layout, f"overlay:{other}")["commit"]
    if more.get("network"):
        more["variables"] = {**site.proxies, **(more.get("variables") or {})}
    if "etc" not in more:
        more["etc"] = _etc(site, name)
    more.setdefault("layers", _paths(site, records.read(layout, f"chroot:{name}")["layers"]))
    return sandbox_plan.plan(
        name,
        workspace=space,
        repos={repo: layout.export(commit) for repo, commit in commits.items()},
        timestamp=records.read(layout, "tree")["timestamp"],
        **more,
    )


def _etc(site: Site, name: str) -> Path:
    """The generated /etc/portage of a chroot; raises where somebody has changed it since."""
    from tasks.portage import etc_portage

    record = records.read(site.layout, f"etc:{name}")
    folder = site.layout.state / str(record["path"])
    etc_portage.vouched(folder, record["files"])
    return folder


def revisions(site: Site, name: str) -> dict[str, str]:
    """The commit of every repository that a chroot sees."""
    found = {site.config.tree.name: records.read(site.layout, "tree")["commit"]}
    for other in site.config.effective(name).overlays:
        found[other] = records.read(site.layout, f"overlay:{other}")["commit"]
    return found


@contextmanager
def workspace(site: Site, name: str) -> Iterator[Path]:
    """A throwaway upper layer under this task's name."""
    from tasks.system import sandbox

    with sandbox.workspace(site.layout.work, name, site.layout.trash) as space:
        yield space


def sweep(site: Site, folder: Path, keep: set[Path]) -> None:
    """Delete what earlier runs left in a folder of identified results."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry not in keep:
                remove_tree(entry, site.layout.trash)


def _relative(site: Site, path: Path) -> str:
    return str(path.relative_to(site.layout.state))


def _paths(site: Site, relative: list[str]) -> list[Path]:
    return [site.layout.state / part for part in relative]
