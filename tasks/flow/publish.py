"""publish: switch clients to another generation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import clock, records
from tasks.errors import BinmillError
from tasks.flow import hooks, signing
from tasks.records import BINPKGS, CANDIDATE, CandidateRecord, Inputs, PublishRecord
from tasks.site import Chroot
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.publish.generation import Generation, Rollback


def publish_candidate(chroot: Chroot, inputs: Inputs) -> PublishRecord:
    """Switch clients to the candidate that passed the gate; delete generations no longer needed.

    A rollback stays current until the set changes, or the task is named on the command line.
    """
    from tasks.publish import generation

    hooks.warn(chroot.layout)
    candidate = inputs[CANDIDATE(chroot.name)].generation
    set_id = inputs[BINPKGS(chroot.name)].set
    current = generation.load_current(chroot.binhost)
    if current and _holds(current, set_id) and not inputs.request.named:
        note("rollback-held", chroot=chroot.name, number=current.number)
    elif current is None or current.first != candidate:
        _show(chroot, inputs, candidate)
    for channel in ("", *chroot.site.config.binhost.channels):
        if not valid(chroot, channel):
            _renew(chroot, inputs, channel)
    current = generation.load_current(chroot.binhost)
    assert current is not None  # noqa: S101 - the candidate is published, or there was one
    deleted = prune(chroot, {candidate, current.number})
    note("generation-current", chroot=chroot.name, number=current.number)
    if deleted:
        note("generations-deleted", chroot=chroot.name, numbers=len(deleted))
    return PublishRecord(current.number, current.source.set, current.issue.views)


def _show(chroot: Chroot, inputs: Inputs, number: int) -> None:
    """Show clients a candidate, or an earlier generation as a new one."""
    from tasks.publish import candidate, generation

    binhost = chroot.binhost
    if candidate.is_next(binhost, number):
        candidate.promote_candidate(binhost, number)
    if number == max(generation.numbers(binhost), default=0):
        switch(chroot, number)
    else:  # after a rollback in between: clients must not get an older index
        reissue(chroot, inputs, generation.load(binhost, number))


def _renew(chroot: Chroot, inputs: Inputs, channel: str) -> None:
    """Issue a channel's generation again, unchanged, before its release manifest expires."""
    from tasks.publish import generation

    current = generation.load_current(chroot.binhost, channel)
    if current is None:
        return
    if current.source.signer != chroot.site.config.binhost.signing_key:
        which = channel or "current"
        note("manifest-not-renewed", chroot=chroot.name, number=current.number, channel=which)
        return
    reissue(chroot, inputs, current, channel, current.issue.rollback)


def reissue(
    chroot: Chroot,
    inputs: Inputs,
    earlier: Generation,
    channel: str = "",
    rollback: Rollback | None = None,
) -> int:
    """Make a new generation with the packages of an earlier one, for a channel.

    Returns its number. Raises BinmillError if another key signed the packages.
    """
    from tasks.publish import candidate, generation

    binhost, table = chroot.binhost, chroot.site.config.binhost
    if earlier.source.signer != table.signing_key:
        raise BinmillError(
            "generation-signed-by-other-key",
            number=earlier.number,
            chroot=chroot.name,
            signer=earlier.source.signer,
            key=table.signing_key,
        )
    with chroot.workspace("sign") as space:
        number = candidate.prepare(
            binhost,
            candidate.read_content(generation.folder_of(binhost, earlier.number)),
            partial(signing.sign_beside, chroot, inputs, space),
            chroot.layout.trash,
            valid_days=table.valid_days,
            rollback=rollback,
        )
    candidate.promote_candidate(binhost, number)
    switch(chroot, number, channel)
    return number


def switch(chroot: Chroot, number: int, channel: str = "") -> None:
    """Let clients see a generation, as the current one or that of a channel, and run the hook."""
    from tasks.publish import generation

    generation.switch(chroot.binhost, number, channel)
    folder = generation.folder_of(chroot.binhost, number)
    facts = {"generation": number, "channel": channel, "folder": folder}
    hooks.run(chroot, "publish", "published", facts)


def holds_rollback(chroot: Chroot, set_id: str) -> bool:
    """True if the current generation comes from a rollback away from that set."""
    from tasks.publish import generation

    current = generation.load_current(chroot.binhost)
    return current is not None and _holds(current, set_id)


def _holds(current: Generation, set_id: str) -> bool:
    return current.issue.rollback is not None and current.issue.rollback.instead_of == set_id


def rollback_ends(chroot: Chroot) -> bool:
    """True if publish:NAME would end a rollback, were it named on the command line."""
    try:
        record = records.load(chroot.layout, BINPKGS(chroot.name))
    except BinmillError:
        return False
    return holds_rollback(chroot, record.set)


def prune(chroot: Chroot, pinned: set[int]) -> list[int]:
    """Delete generations that are no longer needed, except pinned ones; returns their numbers."""
    from tasks.publish import retention

    table = chroot.site.config.binhost
    return retention.prune(
        chroot.binhost,
        pinned,
        keep=table.keep,
        keep_days=table.keep_days,
        trash=chroot.layout.trash,
    )


def place(chroot: Chroot, record: CandidateRecord | PublishRecord | records.GateRecord) -> Path:
    """The folder of the generation that a record names."""
    from tasks.publish import generation

    return generation.folder_of(chroot.binhost, record.generation)


def all_valid(chroot: Chroot) -> bool:
    """True while no release manifest of any channel is due for renewal."""
    return all(valid(chroot, channel) for channel in ("", *chroot.site.config.binhost.channels))


def valid(chroot: Chroot, channel: str = "") -> bool:
    """True while a channel's release manifests are not due for renewal, or if it has none."""
    from tasks.publish import generation, release_manifest

    try:
        current = generation.load_current(chroot.binhost, channel)
    except (BinmillError, OSError, ValueError):
        return False  # damaged
    days = chroot.site.config.binhost.valid_days
    return current is None or clock.now() < release_manifest.renewal(current.issue.created, days)
