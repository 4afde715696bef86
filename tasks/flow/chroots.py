"""seed, chroot, mount: from a stage tarball to a chroot that can be entered."""

from __future__ import annotations

import contextlib
from pathlib import Path

from tasks import lock as lock_file
from tasks.errors import BinmillError, Busy
from tasks.lock import SeedPin
from tasks.records import CHROOT, SEED, ChrootRecord, Inputs, MountRecord, SeedRecord
from tasks.site import Chroot, Site, identity
from tasks.system.command import require_root
from tasks.system.files import locked, private_folder, remove_tree
from tasks.system.notes import note


def extract_seed(site: Site, name: str, inputs: Inputs) -> SeedRecord:
    """Extract a pinned stage tarball, once per digest."""
    pin: SeedPin = lock_file.pin_of(inputs.lock().seeds, "seed", name)
    target = site.layout.seed(pin.sha512)
    if not target.is_dir():
        require_root("unpack a stage with its owners and devices")
        private_folder(target.parent)
        # two seeds may be the same stage, and two tasks may extract it at once
        with locked(site.layout.extraction_lock(target.name), f"the stage {pin.path}", wait=True):
            if not target.is_dir():
                _extract(site, name, pin, target)
    return SeedRecord(pin.path, pin.sha512)


def _extract(site: Site, name: str, pin: SeedPin, target: Path) -> None:
    from tasks.seed import download
    from tasks.seed.extract import extract

    entry = site.config.seeds[name]
    _delete_leftovers(site, target)
    if entry.file is not None:
        opening = download.open_local_file(entry, pin, site.layout.site / entry.file)
    else:
        source = download.StageSource(entry, site.mirrors, site.layout.downloads)
        opening = download.open_download(source, pin)
    with opening as archive:
        totals = extract(archive, target, site.layout.trash)
    note("seed-extracted", archive=archive.name, entries=totals.entries, size=totals.size)


def _delete_leftovers(site: Site, target: Path) -> None:
    """Delete what killed runs left of other stages; `extract` deletes what is left of this one."""
    for left in target.parent.glob(".*.tmp"):
        with (
            contextlib.suppress(Busy),
            locked(site.layout.extraction_lock(left.name[1:-4]), f"the stage in {left}"),
        ):
            remove_tree(left, site.layout.trash)


def make_chroot(chroot: Chroot, inputs: Inputs) -> ChrootRecord:
    """Commit a chroot's own layer; its record lists all layers, topmost first.

    Manual changes are the topmost layer, as long as the layers below are those they were made to.
    """
    from tasks.chroot import layers, manual_changes

    below = _below(chroot, inputs)
    files = layers.contents(chroot.name, [each.name for each in chroot.lineage])
    target = chroot.layout.layer(chroot.name, identity([list(below.layers), files]))
    require_root("make a chroot's layer")
    private_folder(target.parent.parent)
    state = chroot.layout.state
    layers.commit(files, [state / part for part in below.layers], target, chroot.layout.trash)
    stack = (str(target.relative_to(state)), *below.layers)
    changes = manual_changes.read_mark(chroot.layout, chroot.name)
    if changes and changes.over == stack:
        note("chroot-modified", chroot=chroot.name)
        return ChrootRecord((changes.layer, *stack), (*below.modified, chroot.name))
    if changes:
        manual_changes.discard(chroot.layout, chroot.name)
        note("manual-changes-dropped", chroot=chroot.name)
    return ChrootRecord(stack, below.modified)


def _below(chroot: Chroot, inputs: Inputs) -> ChrootRecord:
    """Return the layers below a chroot's own: those of its base, or its seed."""
    if chroot.base:
        return inputs[CHROOT(chroot.base.name)]
    seed = chroot.layout.seed(inputs[SEED(chroot.seed)].sha512)
    return ChrootRecord((str(seed.relative_to(chroot.layout.state)),))


def enter_once(chroot: Chroot, inputs: Inputs) -> MountRecord:
    """Prove that the mounted chroot can be entered: mounts and environment as seen inside."""
    from tasks.chroot import sandbox_plan, sandboxes
    from tasks.system import sandbox

    with chroot.workspace("mount") as space:
        inside = sandboxes.own(chroot, inputs, space)
        mounts = sandbox.run(inside, ["cat", "/proc/self/mountinfo"]).stdout
        environment = sandbox.run(inside, ["env", "-0"]).stdout
        profile = sandbox.run(inside, ["readlink", "-e", "/etc/portage/make.profile"], check=False)
    if profile.returncode != 0:
        raise BinmillError(
            "chroot-profile-missing", chroot=chroot.name, profile=str(chroot.config.profile)
        )
    table = sandbox_plan.mount_table(mounts)
    note("chroot-entered", chroot=chroot.name, mounts=len(table))
    return MountRecord(table, tuple(sorted(filter(None, environment.split("\0")))))


def sweep(folder: Path, keep: set[Path], trash: Path) -> None:
    """Delete all entries but those to keep, in a folder of results named by their content."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry not in keep:
                remove_tree(entry, trash)
